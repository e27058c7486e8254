//! An S3 server of a test: SeaweedFS, which keeps objects on disk and checks signatures as S3 does.

use crate::{PATIENCE, Place, Process, eventually, find_program};
use std::path::PathBuf;
use std::time::Duration;

/// SeaweedFS, whose program is called `weed`, comes as a Python wheel.
const PACKAGE: &str = "python3-venv, then run scripts/setup, which puts it into .venv";
/// Where `scripts/setup` puts it.
const OWN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.venv/bin/weed");
/// An S3 server in a directory of its own, with one bucket and one account.
pub struct S3Server {
    process: Option<Process>,
    program: PathBuf,
    place: Place,
    ports: Ports,
}

/// What all its parts listen on. By custom the port for gRPC is the other plus 10,000, which may be no port at all.
struct Ports {
    s3: u16,
    master: [u16; 2],
    volume: [u16; 2],
    filer: [u16; 2],
    s3_grpc: u16,
}

impl S3Server {
    /// What every server of the kit has: one account, which may do everything, and one bucket.
    pub const ACCESS_KEY_ID: &str = "holon-test";
    pub const SECRET_ACCESS_KEY: &str = "holon-test-secret";
    pub const BUCKET: &str = "holon";

    /// Answers once the server lets the account into the bucket.
    pub async fn start() -> Self {
        Self::start_in(Place::temporary()).await
    }

    /// Starts on what was left in a place.
    pub async fn start_in(place: Place) -> Self {
        let own = PathBuf::from(OWN);
        let program = match own.is_file() {
            true => own,
            false => find_program("weed", PACKAGE).unwrap_or_else(|error| panic!("{error}")),
        };
        let pair = |name: &str| [place.port(name), place.port(&format!("{name}-grpc"))];
        let ports = Ports {
            s3: place.port("s3"),
            master: pair("master"),
            volume: pair("volume"),
            filer: pair("filer"),
            s3_grpc: place.port("s3-grpc"),
        };
        let accounts = format!(
            r#"{{"identities":[{{"name":"test","credentials":[{{"accessKey":"{}","secretKey":"{}"}}],"actions":["Admin","Read","Write","List"]}}]}}"#,
            Self::ACCESS_KEY_ID,
            Self::SECRET_ACCESS_KEY
        );
        std::fs::write(place.path().join("s3.json"), accounts).expect("a file in a temporary directory");
        std::fs::create_dir_all(place.path().join("data")).expect("a directory in a temporary directory");
        let mut server = Self {
            process: None,
            program,
            place,
            ports,
        };
        server.restart().await;
        server
    }

    /// Such as `http://127.0.0.1:40123`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.s3)
    }

    pub fn bucket(&self) -> &str {
        Self::BUCKET
    }

    pub fn access_key_id(&self) -> &str {
        Self::ACCESS_KEY_ID
    }

    pub fn secret_access_key(&self) -> &str {
        Self::SECRET_ACCESS_KEY
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub async fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill().await;
        }
    }

    /// Ends it in good order.
    pub async fn stop(&mut self, patience: Duration) {
        if let Some(process) = self.process.take() {
            process.stop(patience).await;
        }
    }

    /// Whether its process is there.
    pub fn is_running(&mut self) -> bool {
        self.process
            .as_mut()
            .is_some_and(|process| process.ended().is_none())
    }

    /// The id of its process.
    ///
    /// # Panics
    /// If it was killed.
    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("a server that runs").id()
    }

    pub fn port(&self) -> u16 {
        self.ports.s3
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Starts it anew with what it kept.
    pub async fn restart(&mut self) {
        self.kill().await;
        let Ports {
            s3,
            master,
            volume,
            filer,
            s3_grpc,
        } = &self.ports;
        let data = self.place.path().join("data").display().to_string();
        let config = self.place.path().join("s3.json").display().to_string();
        let settings = [
            ("dir", data),
            ("ip", "127.0.0.1".into()),
            ("ip.bind", "127.0.0.1".into()),
            ("master.port", master[0].to_string()),
            ("master.port.grpc", master[1].to_string()),
            ("master.volumeSizeLimitMB", "64".into()),
            ("master.telemetry", "false".into()),
            ("volume.port", volume[0].to_string()),
            ("volume.port.grpc", volume[1].to_string()),
            ("volume.max", "100".into()),
            ("filer", "true".into()),
            ("filer.port", filer[0].to_string()),
            ("filer.port.grpc", filer[1].to_string()),
            ("s3", "true".into()),
            ("s3.port", s3.to_string()),
            ("s3.port.grpc", s3_grpc.to_string()),
            ("s3.port.iceberg", "0".into()),
            ("s3.port.lance", "0".into()),
            ("s3.iam", "false".into()),
            ("s3.config", config),
        ];
        let arguments = std::iter::once("server".to_owned())
            .chain(settings.map(|(setting, value)| format!("-{setting}={value}")));
        let mut process = Process::start_in(&self.place, &self.program, arguments);
        process.listening(*s3, PATIENCE).await;
        self.process = Some(process);
        self.make_bucket().await;
    }

    /// By its own shell, which needs no signature; it fails until all parts have found each other.
    async fn make_bucket(&self) {
        let [port, grpc] = self.ports.master;
        let [filer, filer_grpc] = self.ports.filer;
        let arguments = [
            "shell".to_owned(),
            format!("-master=127.0.0.1:{port}.{grpc}"),
            format!("-filer=127.0.0.1:{filer}.{filer_grpc}"),
        ];
        eventually("the bucket to be made", PATIENCE, || async {
            let mut shell = tokio::process::Command::new(&self.program)
                .args(&arguments)
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .expect("a program that was found can be run");
            let mut input = shell.stdin.take().expect("its input was asked for");
            let commands = format!("s3.bucket.create -name {}\ns3.bucket.list\nexit\n", Self::BUCKET);
            tokio::io::AsyncWriteExt::write_all(&mut input, commands.as_bytes())
                .await
                .ok()?;
            drop(input);
            let output = shell.wait_with_output().await.ok()?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            said.lines()
                .any(|line| {
                    line.trim_start_matches("> ")
                        .trim_start()
                        .starts_with(Self::BUCKET)
                })
                .then_some(())
        })
        .await;
    }
}
