//! `casemate tag`: gives an image more names.

use std::path::Path;

use crate::cli::TagArgs;
use crate::error::Result;
use crate::image::Reference;
use crate::store::{self, Store, Wanted};

pub(super) fn tag(args: &TagArgs, data_home: &Path) -> Result<()> {
    let wanted = Wanted::parse(&args.image)?;
    let names: Vec<_> =
        args.names.iter().map(|name| Reference::parse(name)).collect::<Result<_>>()?;
    if Store::find(data_home)?.is_none() {
        return Err(store::missing(wanted.reference(), std::iter::empty()));
    }
    Store::open(data_home)?.tag(&wanted, &names)
}
