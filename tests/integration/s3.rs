//! An S3 server for the tests.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A server that speaks S3 and checks signatures: `SPORTELLO_TEST_S3` names one, else `.ci/s3` starts it.
pub(crate) struct S3Server {
    /// Host and port.
    pub address: String,
    child: Option<Child>,
}

impl S3Server {
    pub(crate) fn find() -> Self {
        if let Ok(address) = std::env::var("SPORTELLO_TEST_S3") {
            return Self { address, child: None };
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/s3");
        let mut child = Command::new("bash")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash is here");
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        assert!(!address.is_empty(), "bash .ci/s3 starts a server");
        Self { address: address.trim().into(), child: Some(child) }
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // At the end of its input it ends the server, and itself.
            drop(child.stdin.take());
            let _ended = child.wait();
        }
    }
}
