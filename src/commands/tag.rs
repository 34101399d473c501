//! `casemate tag`: gives an image more names.

use super::registries;
use crate::cli::TagArgs;
use crate::error::Result;
use crate::host::Directories;
use crate::image::Reference;
use crate::store::{self, Store, Wanted};

pub(super) fn tag(args: &TagArgs, directories: &Directories) -> Result<()> {
    let data_home = directories.store()?;
    let wanted = Wanted::parse(&args.image)?;
    let candidates = registries::candidates(wanted.reference(), directories);
    let wanted = wanted.with_candidates(&candidates);
    let names: Vec<_> =
        args.names.iter().map(|name| Reference::parse(name)).collect::<Result<_>>()?;
    if Store::find(data_home)?.is_none() {
        return Err(store::missing(wanted.reference(), std::iter::empty()));
    }
    Store::open(data_home)?.tag(&wanted, &names)
}
