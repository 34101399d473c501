//! The root that the host's own system makes: /usr and what belongs to it, and a short list of
//! /etc. What is not on these lists is not there.

/// Directories of the system, read-only; on a merged /usr most are symbolic links into it.
pub const SYSTEM: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// How a part of /etc gets into the box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Copied: cheaper than a mount of its own at the start and at the end. For small files.
    Copy,
    /// Mounted read-only. For directories and large files.
    Bind,
}

/// What programs read of /etc, and what holds no secret: the dynamic loader's cache, names of
/// services, certificates, fonts, the time zone, alternatives, and the settings of interpreters
/// that live half in /usr and half in /etc. /etc/passwd, group and hosts are written for the box.
/// Each costs every start 10 to 20 µs; what only administration or a desktop reads is left out.
pub const ETC: [(&str, How); 26] = [
    ("alternatives", How::Bind),
    ("crypto-policies", How::Bind),
    ("debian_version", How::Copy),
    ("fonts", How::Bind),
    ("host.conf", How::Copy),
    ("ImageMagick-6", How::Bind),
    ("ImageMagick-7", How::Bind),
    ("inputrc", How::Copy),
    ("java-11-openjdk", How::Bind),
    ("java-17-openjdk", How::Bind),
    ("java-21-openjdk", How::Bind),
    ("java-25-openjdk", How::Bind),
    ("ld.so.cache", How::Bind),
    ("locale.conf", How::Copy),
    ("localtime", How::Copy),
    ("lsb-release", How::Copy),
    ("magic", How::Copy),
    ("mime.types", How::Bind),
    ("nsswitch.conf", How::Copy),
    ("os-release", How::Copy),
    ("pki", How::Bind),
    ("protocols", How::Copy),
    ("redhat-release", How::Copy),
    ("services", How::Bind),
    ("ssl", How::Bind),
    ("timezone", How::Copy),
];

/// What the network needs of /etc, present only where the box has the host's network.
pub const ETC_NETWORK: [(&str, How); 1] = [("resolv.conf", How::Copy)];
