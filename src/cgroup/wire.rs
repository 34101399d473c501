//! D-Bus messages as bytes (D-Bus Specification 0.43, "Message Protocol"): what a handful of calls
//! needs, written little-endian and read in either order. What comes in is foreign: every length is
//! checked against what is there, and nothing is allocated by a length that was only claimed.

use crate::error::{Error, Result};

/// The longest message that is read. The specification allows 128 MiB; a manager's replies and
/// signals have a few hundred bytes.
pub(super) const LIMIT: usize = 1 << 20;
/// The bytes from which the length of a message is known.
pub(super) const FIXED: usize = 16;

/// A value of a unit's property, in its variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// `s`
    Text(String),
    /// `b`
    Bool(bool),
    /// `t`
    Number(u64),
    /// `au`
    Numbers(Vec<u32>),
    /// `ay`
    Bytes(Vec<u8>),
    /// `ah`: this many descriptors, which the message carries in their order.
    Descriptors(u32),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Value::Text(_) => "s",
            Value::Bool(_) => "b",
            Value::Number(_) => "t",
            Value::Numbers(_) => "au",
            Value::Bytes(_) => "ay",
            Value::Descriptors(_) => "ah",
        }
    }
}

/// Marshals values in order.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn string(&mut self, text: &str) {
        // Ours are short: names of units and of interfaces.
        self.u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.u32(value.into());
    }

    /// An array whose elements begin at multiples of `alignment`. The padding before the first one
    /// does not count.
    pub(super) fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Writer)) {
        self.u32(0);
        let at = self.0.len() - 4;
        self.align(alignment);
        let start = self.0.len();
        elements(self);
        let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        self.0[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Text(text) => self.string(text),
            Value::Bool(value) => self.bool(*value),
            Value::Number(number) => {
                self.align(8);
                self.0.extend(number.to_le_bytes());
            }
            Value::Numbers(numbers) => {
                self.array(4, |writer| numbers.iter().for_each(|number| writer.u32(*number)));
            }
            Value::Bytes(bytes) => self.array(1, |writer| writer.0.extend(bytes)),
            Value::Descriptors(count) => {
                self.array(4, |writer| (0..*count).for_each(|index| writer.u32(index)));
            }
        }
    }

    /// `a(sv)`, the properties of a unit.
    pub(super) fn properties(&mut self, properties: &[(&str, Value)]) {
        self.array(8, |writer| {
            for (name, value) in properties {
                writer.align(8);
                writer.string(name);
                writer.signature(value.signature());
                writer.value(value);
            }
        });
    }
}

/// A method call.
pub(super) struct Call<'a> {
    /// Whom; empty where there is no bus between.
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    /// The types of the arguments.
    pub(super) signature: &'a str,
    pub(super) body: Writer,
    /// How many descriptors go along.
    pub(super) descriptors: u32,
}

impl Call<'_> {
    /// The message.
    pub(super) fn encode(self, serial: u32) -> Vec<u8> {
        let body = self.body.0;
        // Little-endian, METHOD_CALL, no flags, version 1.
        let mut writer = Writer(vec![b'l', 1, 0, 1]);
        writer.u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
        writer.u32(serial);
        writer.array(8, |writer| {
            let mut field = |code: u8, kind: &str, text: &str| {
                writer.align(8);
                writer.0.push(code);
                writer.signature(kind);
                if kind == "g" { writer.signature(text) } else { writer.string(text) }
            };
            field(1, "o", self.path);
            field(2, "s", self.interface);
            field(3, "s", self.member);
            if !self.destination.is_empty() {
                field(6, "s", self.destination);
            }
            if !self.signature.is_empty() {
                field(8, "g", self.signature);
            }
            if self.descriptors > 0 {
                writer.align(8);
                writer.0.push(9);
                writer.signature("u");
                writer.u32(self.descriptors);
            }
        });
        writer.align(8);
        writer.0.extend(body);
        writer.0
    }
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A method call.
    Call,
    /// The answer to one.
    Return,
    /// The refusal of one.
    Error,
    /// A signal.
    Signal,
}

/// A message that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    /// The serial of the call that it answers.
    pub(super) reply_to: Option<u32>,
    pub(super) interface: String,
    pub(super) member: String,
    pub(super) error: String,
    pub(super) signature: String,
    body: Vec<u8>,
    big: bool,
}

fn broken(what: &str) -> Error {
    Error::new(format!("read a D-Bus message: {what}"))
}

/// The length of the message whose first [`FIXED`] bytes these are.
pub(super) fn length(start: &[u8; FIXED]) -> Result<usize> {
    let big = order(start[0])?;
    let number = |at: usize| {
        let bytes = [start[at], start[at + 1], start[at + 2], start[at + 3]];
        let number = if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
        usize::try_from(number).unwrap_or(usize::MAX)
    };
    let (body, fields) = (number(4), number(12));
    if body > LIMIT || fields > LIMIT {
        return Err(broken("it is too long"));
    }
    let length = (FIXED + fields).next_multiple_of(8) + body;
    if length > LIMIT { Err(broken("it is too long")) } else { Ok(length) }
}

fn order(mark: u8) -> Result<bool> {
    match mark {
        b'l' => Ok(false),
        b'B' => Ok(true),
        _ => Err(broken("it has no byte order")),
    }
}

impl Message {
    /// Reads a whole message, as long as [`length`] says.
    pub(super) fn decode(bytes: &[u8]) -> Result<Message> {
        let start = bytes.first_chunk::<FIXED>().ok_or_else(|| broken("it is too short"))?;
        let whole = length(start)?;
        if bytes.len() != whole {
            return Err(broken("it is not as long as it says"));
        }
        let big = order(start[0])?;
        if start[3] != 1 {
            return Err(broken("its protocol version is unknown"));
        }
        let mut message = Message {
            kind: match start[1] {
                1 => Kind::Call,
                2 => Kind::Return,
                3 => Kind::Error,
                4 => Kind::Signal,
                _ => return Err(broken("its type is unknown")),
            },
            reply_to: None,
            interface: String::new(),
            member: String::new(),
            error: String::new(),
            signature: String::new(),
            body: Vec::new(),
            big,
        };
        let mut reader = Reader { bytes, at: 12, big };
        let fields = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
        let end = FIXED.checked_add(fields).filter(|end| *end <= whole);
        let end = end.ok_or_else(|| broken("its header is longer than it"))?;
        while reader.at < end {
            reader.align(8)?;
            let code = reader.byte()?;
            let signature = reader.signature()?;
            match (code, signature.as_str()) {
                (2, "s") => message.interface = reader.string()?,
                (3, "s") => message.member = reader.string()?,
                (4, "s") => message.error = reader.string()?,
                (5, "u") => message.reply_to = Some(reader.u32()?),
                (8, "g") => message.signature = reader.signature()?,
                (1, "o") | (6 | 7, "s") => drop(reader.string()?),
                (9, "u") => drop(reader.u32()?),
                (1..=9, _) => return Err(broken("a field of its header has a wrong type")),
                // Fields of later versions are to be passed over; of what type is theirs to say.
                (_, "s" | "o") => drop(reader.string()?),
                (_, "u") => drop(reader.u32()?),
                (_, "g") => drop(reader.signature()?),
                _ => return Err(broken("a field of its header is unknown")),
            }
        }
        if reader.at != end {
            return Err(broken("its header ends within a field"));
        }
        message.body = bytes.get(end.next_multiple_of(8)..).unwrap_or_default().to_vec();
        Ok(message)
    }

    /// Its arguments, which must have these types.
    pub(super) fn arguments(&self, signature: &str) -> Result<Reader<'_>> {
        if self.signature != signature {
            return Err(broken(&format!(
                "arguments of type \"{}\" where \"{signature}\" belongs",
                self.signature
            )));
        }
        Ok(Reader { bytes: &self.body, at: 0, big: self.big })
    }

    /// What an error says, where it says anything.
    pub(super) fn complaint(&self) -> String {
        let text = self.signature.starts_with('s').then(|| {
            Reader { bytes: &self.body, at: 0, big: self.big }.string().unwrap_or_default()
        });
        match text.filter(|text| !text.is_empty()) {
            Some(text) => text,
            None => self.error.clone(),
        }
    }
}

/// Reads values in order.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| broken("it ends within a value"))?;
        self.at += count;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Result<()> {
        self.take(self.at.next_multiple_of(to) - self.at).map(drop)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.align(4)?;
        let bytes = self.take(4)?;
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        Ok(if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    pub(super) fn string(&mut self) -> Result<String> {
        let length = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        self.text(length)
    }

    fn signature(&mut self) -> Result<String> {
        let length = self.byte()?.into();
        self.text(length)
    }

    fn text(&mut self, length: usize) -> Result<String> {
        let text = self.take(length)?;
        if self.byte()? != 0 || text.contains(&0) {
            return Err(broken("a text does not end where it says"));
        }
        let text = str::from_utf8(text).map_err(|_| broken("a text is not UTF-8"))?;
        Ok(text.to_owned())
    }

    /// A variant that holds a text.
    pub(super) fn text_variant(&mut self) -> Result<String> {
        match self.signature()?.as_str() {
            "s" => self.string(),
            other => Err(broken(&format!("a value of type \"{other}\" where a text belongs"))),
        }
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
