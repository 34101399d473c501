//! The casemate command. Everything is in the library; see `casemate::run`.

fn main() {
    std::process::exit(casemate::run(std::env::args_os()))
}
