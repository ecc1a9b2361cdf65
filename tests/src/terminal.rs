//! A terminal that a test has in its hands: a program on one side, the test with the keyboard and the screen on the other.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

/// How long something may take to appear. Generous: it bounds a broken program, not a good one.
const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal with a program in it.
#[derive(Debug)]
pub struct Terminal {
    keyboard: File,
    /// The program's side, kept open so that it can be looked at when the program is gone.
    inside: OwnedFd,
    child: Child,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts `command` in a new terminal of this size.
    ///
    /// # Panics
    ///
    /// If there can be no terminal, or the program can't be started.
    #[must_use]
    pub fn start(command: &mut Command, rows: u16, columns: u16) -> Self {
        let outside = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&outside).expect("ours");
        unlockpt(&outside).expect("ours");
        let name = ptsname(&outside, Vec::new()).expect("it has a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let inside = rustix::fs::open(name, flags, Mode::empty()).expect("the other side");
        let copy = || Stdio::from(inside.try_clone().expect("a descriptor can be copied"));
        command.stdin(copy()).stdout(copy()).stderr(copy());
        // SAFETY: only system calls that are allowed between fork and exec.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
                Ok(())
            });
        }
        let screen = Arc::new(Mutex::new(Vec::new()));
        let keyboard = File::from(outside);
        let terminal = Self { child: command.spawn().expect("it starts"), keyboard, inside, screen };
        terminal.resize(rows, columns);
        let (mut reader, screen) =
            (terminal.keyboard.try_clone().expect("a descriptor can be copied"), Arc::clone(&terminal.screen));
        std::thread::spawn(move || {
            let mut room = [0; 4096];
            while let Ok(read) = reader.read(&mut room) {
                if read == 0 {
                    return;
                }
                screen.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&room[..read]);
            }
        });
        terminal
    }

    /// Presses keys.
    ///
    /// # Panics
    ///
    /// If the terminal is gone.
    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("a terminal of ours");
    }

    /// Gives it another size.
    ///
    /// # Panics
    ///
    /// If the terminal is gone.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.keyboard, size).expect("a terminal of ours");
    }

    /// All that was ever on the screen.
    #[must_use]
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until this was on the screen.
    ///
    /// # Panics
    ///
    /// With what was there, when that takes too long.
    #[track_caller]
    pub fn see(&self, what: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.screen().contains(what) {
            assert!(Instant::now() < deadline, "`{what}` is not in: {}", self.screen());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether keys are taken a line at a time and echoed, as a shell finds it, and not passed on one by one.
    ///
    /// # Panics
    ///
    /// If the terminal is gone.
    #[must_use]
    pub fn is_ordinary(&self) -> bool {
        let modes = tcgetattr(&self.inside).expect("a terminal of ours").local_modes;
        modes.contains(rustix::termios::LocalModes::ICANON | rustix::termios::LocalModes::ECHO)
    }

    /// The program in it.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for the program's end; its exit code.
    ///
    /// # Panics
    ///
    /// If it isn't a child any more.
    pub fn code(&mut self) -> Option<i32> {
        self.child.wait().expect("a child of ours").code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
