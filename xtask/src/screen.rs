//! What the demo shows: steps with their time, and one line that changes in place on a terminal, plain lines elsewhere.

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::time::Instant;

pub struct Screen {
    began: Instant,
    terminal: bool,
    /// A line without its end stands on the terminal.
    open: Cell<bool>,
}

impl Screen {
    pub fn new() -> Screen {
        Screen { began: Instant::now(), terminal: std::io::stdout().is_terminal(), open: Cell::new(false) }
    }

    pub fn step(&self, text: &str) {
        self.end();
        let at = format!("[{:6.1} s]", self.began.elapsed().as_secs_f64());
        if self.terminal { println!("\x1b[1m{at} {text}\x1b[0m") } else { println!("{at} {text}") }
    }

    pub fn note(&self, text: &str) {
        self.end();
        println!("           {text}");
    }

    /// Takes the place of the line before.
    pub fn line(&self, text: &str) {
        if self.terminal {
            print!("\r\x1b[K{text}");
            self.open.set(true);
        } else {
            println!("{text}");
        }
        // Nobody may be reading any more.
        let _ = std::io::stdout().flush();
    }

    pub fn end(&self) {
        if self.open.replace(false) {
            println!();
        }
    }
}
