//! A layer's tar stream as something to read, held to its digest.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::layer::directory_name;
use super::{Store, rebuild};
use crate::error::{Error, Result};
use crate::image::{Digest, Hashing};

const BUFFER: usize = 256 << 10;
const BUFFERS: usize = 8;

/// The tar stream of a layer, which a thread makes again from the tree while it is read. Its end
/// comes only when all of it had the layer's digest: of a tree that was changed the last part is
/// never given, but an error that names the layer.
pub struct LayerStream {
    // Dropped before the thread is waited for: it ends when nobody listens.
    parts: Option<Receiver<Part>>,
    thread: Option<JoinHandle<()>>,
    buffer: Vec<u8>,
    position: usize,
    ended: bool,
}

enum Part {
    Bytes(Vec<u8>),
    End,
    Failed(Error),
}

impl LayerStream {
    pub(super) fn open(store: &Store, layer: &Digest) -> Result<Self> {
        let path = store.layers_dir().join(directory_name(layer));
        let layer = *layer;
        let (send, parts) = sync_channel(BUFFERS);
        let thread = std::thread::Builder::new()
            .name("casemate-layer".to_owned())
            .spawn(move || {
                let mut made = Hashing::new(Parts { pending: Vec::new(), send });
                let written = rebuild::write_directory(path, &mut made);
                let (parts, digest, _) = made.finish();
                parts.end(
                    written.and_then(|()| match digest == layer {
                        true => Ok(()),
                        false => Err(Error::new(format!("its contents have the digest {digest}"))),
                    }),
                    &layer,
                );
            })
            .map_err(|error| Error::os("start", "a thread", error))?;
        let (parts, thread) = (Some(parts), Some(thread));
        Ok(LayerStream { parts, thread, buffer: Vec::new(), position: 0, ended: false })
    }
}

impl Read for LayerStream {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        while self.position == self.buffer.len() && !self.ended && !target.is_empty() {
            match self.parts.as_ref().map(Receiver::recv) {
                Some(Ok(Part::Bytes(bytes))) => (self.buffer, self.position) = (bytes, 0),
                Some(Ok(Part::End)) => self.ended = true,
                Some(Ok(Part::Failed(error))) => return Err(io::Error::other(error)),
                _ => return Err(io::Error::other(Error::new("the reading thread ended early"))),
            }
        }
        let taken = target.len().min(self.buffer.len() - self.position);
        target[..taken].copy_from_slice(&self.buffer[self.position..self.position + taken]);
        self.position += taken;
        Ok(taken)
    }
}

impl Drop for LayerStream {
    fn drop(&mut self) {
        drop(self.parts.take());
        // It says what it has to say through the channel.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

/// Gathers what is written, and always keeps the last part back.
struct Parts {
    pending: Vec<u8>,
    send: SyncSender<Part>,
}

impl Parts {
    fn end(mut self, made: Result<()>, layer: &Digest) {
        let last = match made {
            Ok(()) => {
                // Nobody listens where nobody wants it any more; the same below.
                let _unwanted = self.send.send(Part::Bytes(std::mem::take(&mut self.pending)));
                Part::End
            }
            Err(error) => Part::Failed(
                error
                    .within(format_args!("layer {layer}: cannot be made again"))
                    .hint("its files in the store were changed; `casemate store check` says which"),
            ),
        };
        let _unwanted = self.send.send(last);
    }
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.pending.len() == BUFFER {
            let full = std::mem::replace(&mut self.pending, Vec::with_capacity(BUFFER));
            self.send.send(Part::Bytes(full)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        let taken = bytes.len().min(BUFFER - self.pending.len());
        self.pending.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
