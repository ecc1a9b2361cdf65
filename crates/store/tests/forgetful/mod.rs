//! A disk that forgets: a SQLite VFS over the usual one that knows what was synced and what was only written.
//!
//! It becomes the default of this process, so the store under test opens its files through it without knowing. At any moment it says
//! what a machine would find after losing its power just then: of each file what was synced, and of what was written
//! since an arbitrary part, for a disk brings writes to rest in any order.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::ffi;

/// What was written and not synced yet.
#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Truncate(size) => bytes.truncate(*size),
            Self::Write(at, data) => {
                let end = at + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at..end].copy_from_slice(data);
            }
        }
    }
}

#[derive(Default)]
struct Disk {
    synced: Vec<u8>,
    pending: Vec<Change>,
}

static DISKS: Mutex<Option<HashMap<String, Disk>>> = Mutex::new(None);

fn disks() -> MutexGuard<'static, Option<HashMap<String, Disk>>> {
    DISKS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn change(path: &str, change: Change) {
    disks().get_or_insert_default().entry(path.to_owned()).or_default().pending.push(change);
}

/// Writes into `to` what a loss of power now would leave of the database files in `from`. `kept` says of each write that was not
/// synced whether it came through.
pub(crate) fn lose_power(from: &Path, to: &Path, mut kept: impl FnMut() -> bool) {
    let disks = disks();
    for (path, disk) in disks.iter().flatten() {
        let path = Path::new(path);
        if path.parent() != Some(from) {
            continue;
        }
        let mut bytes = disk.synced.clone();
        for change in &disk.pending {
            if kept() {
                change.apply(&mut bytes);
            }
        }
        std::fs::write(to.join(path.file_name().expect("a name")), bytes).expect("written");
    }
}

/// An open file; the usual VFS's own lies right behind it.
#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    /// The path of a file that is watched; owned.
    path: *mut String,
}

/// The usual VFS's file behind ours.
///
/// # Safety
/// `file` was opened by [`open`], which had `szOsFile` bytes for both.
unsafe fn usual(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: within the same allocation by the caller's promise; `File` is a multiple of a pointer long.
    unsafe { file.cast::<File>().add(1).cast() }
}

/// The path of a file, if it is watched.
///
/// # Safety
/// As for [`usual`]; nothing closes the file meanwhile.
unsafe fn watched<'a>(file: *mut ffi::sqlite3_file) -> Option<&'a str> {
    // SAFETY: `open` wrote the field: null or a box that only `close` takes.
    unsafe { (*file.cast::<File>()).path.as_ref().map(String::as_str) }
}

/// Hands a call on to the usual VFS's file.
macro_rules! hand_on {
    ($name:ident, $method:ident $(, $argument:ident: $type:ty)*) => {
        unsafe extern "C" fn $name(file: *mut ffi::sqlite3_file $(, $argument: $type)*) -> c_int {
            // SAFETY: SQLite passes files that `open` opened, with methods of version 2 at least.
            unsafe {
                let usual = usual(file);
                (*(*usual).pMethods).$method.expect("a method")(usual $(, $argument)*)
            }
        }
    };
}

hand_on!(read, xRead, buffer: *mut c_void, amount: c_int, offset: ffi::sqlite3_int64);
hand_on!(usual_write, xWrite, buffer: *const c_void, amount: c_int, offset: ffi::sqlite3_int64);
hand_on!(usual_truncate, xTruncate, size: ffi::sqlite3_int64);
hand_on!(usual_sync, xSync, flags: c_int);
hand_on!(usual_close, xClose);
hand_on!(file_size, xFileSize, size: *mut ffi::sqlite3_int64);
hand_on!(lock, xLock, level: c_int);
hand_on!(unlock, xUnlock, level: c_int);
hand_on!(check_reserved_lock, xCheckReservedLock, out: *mut c_int);
hand_on!(file_control, xFileControl, operation: c_int, argument: *mut c_void);
hand_on!(sector_size, xSectorSize);
hand_on!(device_characteristics, xDeviceCharacteristics);
hand_on!(shm_map, xShmMap, page: c_int, size: c_int, extend: c_int, out: *mut *mut c_void);
hand_on!(usual_shm_lock, xShmLock, offset: c_int, count: c_int, flags: c_int);
hand_on!(shm_unmap, xShmUnmap, delete: c_int);

/// The name of the thread whose next transaction can't be begun.
static REFUSED: Mutex<Option<String>> = Mutex::new(None);

/// Has the disk fail when the thread of this name next begins to write.
pub(crate) fn refuse_next_transaction(thread: &str) {
    *REFUSED.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread.to_owned());
}

unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, offset: c_int, count: c_int, flags: c_int) -> c_int {
    // The lock of who writes is the first of them (walformat.html, "WAL Locks").
    if (offset, flags) == (0, ffi::SQLITE_SHM_LOCK | ffi::SQLITE_SHM_EXCLUSIVE) {
        let mut refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.as_deref().is_some_and(|thread| std::thread::current().name() == Some(thread)) {
            *refused = None;
            return ffi::SQLITE_IOERR_SHMLOCK;
        }
    }
    // SAFETY: as in `hand_on`.
    unsafe { usual_shm_lock(file, offset, count, flags) }
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    // SAFETY: as in `hand_on`.
    unsafe {
        let usual = usual(file);
        (*(*usual).pMethods).xShmBarrier.expect("a method")(usual);
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    buffer: *const c_void,
    amount: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite passes a file of ours and `amount` readable bytes.
    unsafe {
        if let Some(path) = watched(file) {
            let bytes = std::slice::from_raw_parts(buffer.cast::<u8>(), amount as usize).to_vec();
            change(path, Change::Write(offset as usize, bytes));
        }
        usual_write(file, buffer, amount, offset)
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    // SAFETY: SQLite passes a file of ours.
    unsafe {
        if let Some(path) = watched(file) {
            change(path, Change::Truncate(size as usize));
        }
        usual_truncate(file, size)
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: SQLite passes a file of ours.
    unsafe {
        if let Some(path) = watched(file)
            && let Some(disk) = disks().get_or_insert_default().get_mut(path)
        {
            for change in std::mem::take(&mut disk.pending) {
                change.apply(&mut disk.synced);
            }
        }
        usual_sync(file, flags)
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes a file of ours once; the path was made by `Box::into_raw`.
    unsafe {
        let path = std::mem::replace(&mut (*file.cast::<File>()).path, std::ptr::null_mut());
        if !path.is_null() {
            drop(Box::from_raw(path));
        }
        usual_close(file)
    }
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: `install` put the usual VFS into `pAppData`, and SQLite gives `szOsFile` bytes for the file.
    unsafe {
        let real = (*vfs).pAppData.cast::<ffi::sqlite3_vfs>();
        let result = (*real).xOpen.expect("a method")(real, name, usual(file), flags, out_flags);
        let ours = file.cast::<File>();
        (*ours).path = std::ptr::null_mut();
        (*ours).base.pMethods = if result == ffi::SQLITE_OK { &METHODS } else { std::ptr::null() };
        let kinds = ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_WAL;
        if result == ffi::SQLITE_OK && flags & kinds != 0 && !name.is_null() {
            let path = CStr::from_ptr(name).to_string_lossy().into_owned();
            // What lay there before counts as synced.
            let synced = std::fs::read(&path).unwrap_or_default();
            disks().get_or_insert_default().entry(path.clone()).or_insert(Disk { synced, pending: vec![] });
            (*ours).path = Box::into_raw(Box::new(path));
        }
        result
    }
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_directory: c_int) -> c_int {
    // SAFETY: as in `open`.
    unsafe {
        disks().get_or_insert_default().remove(&CStr::from_ptr(name).to_string_lossy().into_owned());
        let real = (*vfs).pAppData.cast::<ffi::sqlite3_vfs>();
        (*real).xDelete.expect("a method")(real, name, sync_directory)
    }
}

/// Makes this the VFS of all databases opened from now on.
pub(crate) fn install() {
    // SAFETY: SQLite's own default VFS lives as long as the process, and so does the copy, which is never freed. The methods
    // that stay the usual ones don't look at the VFS they are given.
    unsafe {
        let real = ffi::sqlite3_vfs_find(std::ptr::null());
        let mut ours = *real;
        ours.zName = c"forgetful".as_ptr();
        ours.pAppData = real.cast();
        ours.szOsFile += size_of::<File>() as c_int;
        ours.xOpen = Some(open);
        ours.xDelete = Some(delete);
        let result = ffi::sqlite3_vfs_register(Box::into_raw(Box::new(ours)), 1);
        assert_eq!(result, ffi::SQLITE_OK);
    }
}
