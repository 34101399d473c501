//! The values of `[limits]` that have a syntax of their own.

use std::fmt;
use std::str::FromStr;

use super::Size;

/// An amount of memory that may be without a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// No limit.
    Unlimited,
    /// This much; 0 among it.
    Size(Size),
}

impl FromStr for Amount {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "unlimited" | "-1" => Ok(Amount::Unlimited),
            "0" => Ok(Amount::Size(Size::Bytes(0))),
            size => size.parse().map(Amount::Size),
        }
    }
}

/// A number of processes; `None` is without a limit, which `unlimited`, -1 and 0 say, as podman's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count(pub Option<u64>);

impl FromStr for Count {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if matches!(text, "unlimited" | "-1" | "0") {
            return Ok(Count(None));
        }
        // The kernel's own ceiling, PID_MAX_LIMIT.
        let number = text.parse().ok().filter(|number| *number <= 4_194_304);
        number
            .filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
            .map(|number| Count(Some(number)))
            .ok_or_else(|| format!("{text:?} is not a number of processes (100, \"unlimited\")"))
    }
}

/// Processors, in thousandths; 0 is no limit, as podman's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpus(pub u64);

impl FromStr for Cpus {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a number of processors (2, 0.5, \"1.25\")");
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // A thousandth of a processor is a tenth of what the kernel can give at the least.
        if !digits(whole) || !digits(part) || whole.len() > 5 || part.len() > 3 {
            return Err(wrong());
        }
        let part = format!("{part:0<3}");
        match (whole.parse::<u64>(), part.parse::<u64>()) {
            (Ok(whole), Ok(part)) if whole * 1000 + part >= 10 || whole + part == 0 => {
                Ok(Cpus(whole * 1000 + part))
            }
            (Ok(_), Ok(_)) => Err(format!("{text:?} is less than a hundredth of a processor")),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:03}", self.0 / 1000, self.0 % 1000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// A share of what others have 100 of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight(pub u16);

impl FromStr for Weight {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let weight = text.parse().ok().filter(|weight| (1..=10_000).contains(weight));
        weight
            .filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
            .map(Weight)
            .ok_or_else(|| format!("{text:?} is not a weight (1 to 10000, others have 100)"))
    }
}

/// Some of the processors, by number, as `0-3,6` (cpuset(7), "List format").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuSet(std::collections::BTreeSet<u16>);

impl CpuSet {
    /// A bit for each, the lowest first.
    pub fn mask(&self) -> Vec<u8> {
        let mut mask = vec![0; self.0.last().map_or(0, |last| usize::from(*last) / 8 + 1)];
        for cpu in &self.0 {
            mask[usize::from(*cpu) / 8] |= 1 << (cpu % 8);
        }
        mask
    }

    /// Whether all of them are among the others.
    pub(crate) fn is_within(&self, others: &CpuSet) -> bool {
        self.0.is_subset(&others.0)
    }
}

impl FromStr for CpuSet {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a list of processors (\"0-3,6\")");
        let number = |text: &str| {
            // CONFIG_NR_CPUS is at most 8192.
            let number = text.parse::<u16>().ok().filter(|number| *number < 8192);
            number.filter(|_| text.bytes().all(|byte| byte.is_ascii_digit())).ok_or_else(wrong)
        };
        let mut cpus = std::collections::BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(wrong());
            }
            cpus.extend(first..=last);
        }
        Ok(CpuSet(cpus))
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut runs: Vec<(u16, u16)> = Vec::new();
        for cpu in &self.0 {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == *cpu => *last = *cpu,
                _ => runs.push((*cpu, *cpu)),
            }
        }
        let runs: Vec<String> = runs
            .into_iter()
            .map(
                |(first, last)| {
                    if first == last { first.to_string() } else { format!("{first}-{last}") }
                },
            )
            .collect();
        f.write_str(&runs.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_strict() {
        assert_eq!("-1".parse(), Ok(Amount::Unlimited));
        assert_eq!("0".parse(), Ok(Amount::Size(Size::Bytes(0))));
        assert_eq!("1k".parse(), Ok(Amount::Size(Size::Bytes(1024))));
        assert_eq!("12".parse(), Ok(Count(Some(12))));
        assert_eq!("unlimited".parse(), Ok(Count(None)));
        for bad in ["", "-2", "+1", "1.5", "99999999999", "1k"] {
            assert!(bad.parse::<Count>().is_err(), "{bad}");
        }
        for bad in ["", "-2", "0m", "many"] {
            assert!(bad.parse::<Amount>().is_err(), "{bad}");
        }
        for bad in ["0", "10001", "", "+5", "1.0"] {
            assert!(bad.parse::<Weight>().is_err(), "{bad}");
        }
    }

    #[test]
    fn processors_have_three_decimals() {
        for (text, thousandths, shown) in
            [("2", 2000, "2"), ("0.5", 500, "0.5"), ("1.25", 1250, "1.25"), ("0", 0, "0")]
        {
            let cpus: Cpus = text.parse().unwrap();
            assert_eq!((cpus.0, cpus.to_string().as_str()), (thousandths, shown));
        }
        for bad in ["", ".5", "1.", "-1", "1e3", "0.001", "0.0001", "123456", "1,5", "NaN"] {
            assert!(bad.parse::<Cpus>().is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_of_processors() {
        let set: CpuSet = "5,0-2,2,9".parse().unwrap();
        assert_eq!(set.to_string(), "0-2,5,9");
        assert_eq!(set.mask(), [0b0010_0111, 0b10]);
        for bad in ["", "1-", "-1", "3-1", "a", "8192", "0,,1", "0-1-2", "+1"] {
            assert!(bad.parse::<CpuSet>().is_err(), "{bad}");
        }
    }
}
