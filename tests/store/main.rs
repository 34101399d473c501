//! The store, with real archives and the real tools that make them, as an ordinary user.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

/// Defines tests that run as an ordinary user: started as root, each runs itself again as one.
macro_rules! user_tests {
    ($(fn $name:ident($home:ident) $body:block)*) => { $(
        #[test]
        fn $name() {
            $crate::common::as_user(concat!(module_path!(), "::", stringify!($name)), |$home| $body)
        }
    )* };
}

mod check;
mod common;
mod durable;
mod faults;
mod formats;
mod hostile;
mod index;
mod layers;
mod manage;
mod repair;
mod share;
mod workshop;
