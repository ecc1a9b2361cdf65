//! What a transaction works with.

use executr_spec::Timestamp;

use crate::postgres::change::Change;
use crate::postgres::core::Core;
use crate::postgres::permits::Permits;
use crate::postgres::session::Session;

/// A transaction under way: where its statements go, and what it has gathered to write.
pub(in crate::postgres) struct Work<'a> {
    pub(in crate::postgres) core: &'a Core,
    pub(in crate::postgres) session: &'a mut Session,
    pub(in crate::postgres) change: &'a mut Change,
    pub(in crate::postgres) permits: &'a mut Permits,
    pub(in crate::postgres) now: Timestamp,
}
