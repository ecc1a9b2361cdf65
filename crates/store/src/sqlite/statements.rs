//! The writer's statements, which stay prepared as long as its connection lives.
//!
//! A job's life is ten statements of a microsecond each. Taking one from a cache by its text, and putting it back, would
//! cost an eighth of that.

use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rusqlite::{Connection, Statement};

use super::error::from_sqlite;
use crate::StoreError;

/// Prepared statements by where their text lies in the program. A text that lies there twice is prepared twice.
pub(super) struct Statements<'c> {
    connection: &'c Connection,
    prepared: RefCell<BTreeMap<(usize, usize), Statement<'c>>>,
}

impl<'c> Statements<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self { connection, prepared: RefCell::default() }
    }

    /// The statement, ready to be executed. While it is held no other can be had.
    pub(super) fn get(&self, sql: &'static str) -> Result<RefMut<'_, Statement<'c>>, StoreError> {
        let place = (sql.as_ptr().addr(), sql.len());
        let mut prepared = self.prepared.borrow_mut();
        if let Entry::Vacant(missing) = prepared.entry(place) {
            missing.insert(self.connection.prepare(sql).map_err(from_sqlite)?);
        }
        RefMut::filter_map(prepared, |prepared| prepared.get_mut(&place))
            .map_err(|_| StoreError::Database(format!("a statement was lost: {sql}")))
    }
}
