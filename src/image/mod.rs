//! image (placeholder until the store branch is merged)
use crate::error::{Error, Result};
/// r
#[derive(Debug, Clone, PartialEq)]
pub struct Reference(String);
impl Reference {
    /// p
    pub fn parse(text: &str) -> Result<Self> {
        if text.contains(' ') {
            return Err(Error::new("image name"));
        }
        Ok(Reference(text.to_owned()))
    }
}
impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
