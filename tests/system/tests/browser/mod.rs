//! A real browser, for several tests.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdout},
};

use chaperone_system_tests::{Lab, installed};
use serde_json::Value;

/// Chromium, with people who each have their own cookies.
pub struct Browser {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Browser {
    /// One whose people go to this server, if they aren't told where.
    pub fn start(lab: &Lab, origin: &str) -> Self {
        let program = installed("approvals").join("browser.mjs");
        let mut child =
            lab.spawn_operator(&format!("HOME={} exec node {} {origin}", lab.dir.display(), program.display()));
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    /// Does something, and gives what came of it.
    pub fn act(&mut self, what: &Value) -> Value {
        writeln!(self.child.stdin.as_mut().unwrap(), "{what}").unwrap();
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{what}: {error}: {line}"));
        assert!(answer.get("failed").is_none(), "{what}: {answer}");
        answer["ok"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // At the end of what it is told, it closes the browser.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
