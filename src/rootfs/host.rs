//! The root that the host's own system makes: /usr and what belongs to it, and a short list of
//! /etc. What is not on these lists is not there.

/// Directories of the system, read-only; on a merged /usr most are symbolic links into it.
pub const SYSTEM: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// What programs read of /etc, and what holds no secret: the dynamic loader's cache, names of
/// services, certificates, fonts, the time zone, alternatives, and the settings of interpreters
/// that live half in /usr and half in /etc. /etc/passwd, group and hosts are written for the box.
/// Each costs every start some 20 µs; what only administration or a desktop reads is left out.
pub const ETC: [&str; 26] = [
    "alternatives",
    "crypto-policies",
    "debian_version",
    "fonts",
    "host.conf",
    "ImageMagick-6",
    "ImageMagick-7",
    "inputrc",
    "java-11-openjdk",
    "java-17-openjdk",
    "java-21-openjdk",
    "java-25-openjdk",
    "ld.so.cache",
    "locale.conf",
    "localtime",
    "lsb-release",
    "magic",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "pki",
    "protocols",
    "redhat-release",
    "services",
    "ssl",
    "timezone",
];

/// What the network needs of /etc, present only where the box has the host's network.
pub const ETC_NETWORK: [&str; 1] = ["resolv.conf"];
