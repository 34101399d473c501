//! What the server tells the kernel unasked.

/// `FUSE_NOTIFY_INVAL_INODE`
const INVALIDATE_INODE: u32 = 2;

/// A part of a file of which the kernel may have cached what is not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stale {
    /// The node of the file.
    pub node: u64,
    /// Where the part begins.
    pub offset: u64,
    /// Its length in bytes; 0 is all that follows.
    pub length: u64,
}

impl Stale {
    /// The message that makes the kernel drop it, and the attributes of the file with it (`struct
    /// fuse_notify_inval_inode_out` behind a header). Writing it waits for pages of that part that
    /// are being read or written back at the time.
    #[must_use]
    pub fn message(&self) -> [u8; 40] {
        let fields: [&[u8]; 6] = [
            &40u32.to_ne_bytes(),
            &INVALIDATE_INODE.to_ne_bytes(),
            // The number of the request that it answers: none.
            &0u64.to_ne_bytes(),
            &self.node.to_ne_bytes(),
            &self.offset.to_ne_bytes(),
            &self.length.to_ne_bytes(),
        ];
        let mut message = [0; 40];
        for (byte, from) in message.iter_mut().zip(fields.into_iter().flatten()) {
            *byte = *from;
        }
        message
    }
}
