//! More names for an image.

use super::Store;
use super::index::Index;
use super::lookup::{Wanted, find};
use super::staging::Staging;
use crate::error::{Error, Result};
use crate::image::Reference;

/// Gives an image more names. Those that another image had lead to this one then.
pub(super) fn tag(store: &Store, wanted: &Wanted<'_>, names: &[Reference]) -> Result<()> {
    if let Some(name) = names.iter().find(|name| name.digest().is_some()) {
        return Err(Error::new(format!("tag {name}: a name with a digest cannot be given away"))
            .hint("a new name is NAME[:TAG]"));
    }
    let staging = Staging::new(store)?;
    let _lock = store.lock()?;
    let mut index = Index::read(store)?;
    let entry = find(&index, wanted)?.first().clone();
    for name in names {
        index.insert(entry.renamed(name));
    }
    index.write(store, &staging)
}
