//! The architectures whose system calls can be filtered.

use libseccomp::ScmpArch;
use serde::Serialize;

/// A system call ABI, as `struct seccomp_data.arch` tells them apart. All of them are
/// little-endian, which the compiler relies on for the halves of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Architecture {
    /// x86-64, without x32: that ABI has the same token and numbers with bit 30 set.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 32-bit x86, native or through `int $0x80` and `IA32_EMULATION`.
    I386,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM, EABI.
    Arm,
    /// 64-bit RISC-V.
    Riscv64,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Architecture; 5] = [
        Architecture::X86_64,
        Architecture::I386,
        Architecture::Aarch64,
        Architecture::Arm,
        Architecture::Riscv64,
    ];

    /// The one that this program was built for. On any other there is no filter, hence no build.
    pub const fn native() -> Self {
        target()
    }

    /// The 32-bit ABI that a kernel of this architecture may run beside it.
    pub const fn compat32(self) -> Option<Self> {
        match self {
            Architecture::X86_64 => Some(Architecture::I386),
            Architecture::Aarch64 => Some(Architecture::Arm),
            Architecture::I386 | Architecture::Arm | Architecture::Riscv64 => None,
        }
    }

    /// The name, as uname(2) has it.
    pub const fn name(self) -> &'static str {
        match self {
            Architecture::X86_64 => "x86_64",
            Architecture::I386 => "i386",
            Architecture::Aarch64 => "aarch64",
            Architecture::Arm => "arm",
            Architecture::Riscv64 => "riscv64",
        }
    }

    /// `AUDIT_ARCH_*` of linux/audit.h, the value of `seccomp_data.arch`.
    pub const fn token(self) -> u32 {
        match self {
            Architecture::X86_64 => 0xc000_003e,
            Architecture::I386 => 0x4000_0003,
            Architecture::Aarch64 => 0xc000_00b7,
            Architecture::Arm => 0x4000_0028,
            Architecture::Riscv64 => 0xc000_00f3,
        }
    }

    pub(super) const fn scmp(self) -> ScmpArch {
        match self {
            Architecture::X86_64 => ScmpArch::X8664,
            Architecture::I386 => ScmpArch::X86,
            Architecture::Aarch64 => ScmpArch::Aarch64,
            Architecture::Arm => ScmpArch::Arm,
            Architecture::Riscv64 => ScmpArch::Riscv64,
        }
    }
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(target_arch = "x86_64")]
const fn target() -> Architecture {
    Architecture::X86_64
}
#[cfg(target_arch = "x86")]
const fn target() -> Architecture {
    Architecture::I386
}
#[cfg(target_arch = "aarch64")]
const fn target() -> Architecture {
    Architecture::Aarch64
}
#[cfg(target_arch = "arm")]
const fn target() -> Architecture {
    Architecture::Arm
}
#[cfg(target_arch = "riscv64")]
const fn target() -> Architecture {
    Architecture::Riscv64
}
