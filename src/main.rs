//! The command line: arguments, signals, exit codes.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Parser, Subcommand};
use serde_json::json;
use sportello::config::{Problems, Sources};
use sportello::keys::{self, ApiKey, Keys, Scope};
use sportello::node::{Node, StartError, local_addresses};
use sportello::telemetry;
use tokio::signal::unix::{SignalKind, signal};

use self::recordings::{ExportArguments, RepairArguments, VerifyArguments};

#[path = "main/places.rs"]
mod places;
#[path = "main/progress.rs"]
mod progress;
#[path = "main/recordings.rs"]
mod recordings;

/// Packets' memory is taken by one thread and let go by another: the system's allocator holds on to a third more of it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// It failed, or something was found.
const FAILED: ExitCode = ExitCode::FAILURE;
/// The command line or the configuration is wrong; clap's own exit code for usage.
const USAGE: u8 = 2;

/// A media server for public counters: rooms admitted by code, recorded whole, driven by REST.
///
/// Exit codes: 0 done, 1 failed or something found, 2 wrong usage or configuration.
#[derive(Parser)]
#[command(name = "sportello", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node
    ///
    /// The first start makes the data directory, the database and the API keys, which are printed this once.
    /// SIGINT or SIGTERM stops it: the recordings of live rooms are finished first. A second signal stops it at once;
    /// what was recorded until the last second stays.
    Serve {
        /// Configuration file (TOML); its keys are explained in config/default.toml. Environment variables
        /// `SPORTELLO__SECTION__KEY` come before it.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Try it on this machine: a room is booked, links and codes are printed
    ///
    /// Plain HTTP on this machine only, an embedded database, recordings on the local disk. The page at / shows the
    /// links and the «SMS» codes, and books further rooms.
    Demo {
        /// Address to answer on; port 0: any free port.
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
        /// Folder for everything that is kept; made if it does not exist.
        #[arg(long, value_name = "DIR", default_value = "./data/demo")]
        data_dir: PathBuf,
        /// Allow an address that other machines reach. The demo shows every code to whoever opens it, and browsers
        /// give their cameras to localhost and https:// only.
        #[arg(long)]
        expose: bool,
    },
    /// Check packages and recordings: nothing of them was changed, left out or put in
    ///
    /// A sealed package needs only the public key of the node that sealed it. What is not sealed yet (an original, a
    /// room's folder, the whole recordings folder) is compared with its chains alone. Named is what is not as it was: the
    /// file, and in it the cluster of a recording or the line of a ledger. A ledger is a file *.json with what GET
    /// /v1/rooms/{id}/ledger answers, or *.jsonl with one line each; what may be missing at its end shows only against its
    /// package, or a head kept elsewhere. Exit code 0: all whole; 1: something found; 2: wrong usage.
    Verify(VerifyArguments),
    /// Write encrypted recordings as plain WebM, for whoever holds the key
    ///
    /// The session's key is in the node's database, encrypted under the key-encryption key. A plain package still
    /// verifies: its manifest knows what its files hold.
    Export(ExportArguments),
    /// Cut originals that a crash left open to their last whole cluster, as a node does when it starts
    ///
    /// What is cut off is kept beside them, and no key is needed. Only while no node writes there. Done twice, it changes
    /// nothing more.
    Repair(RepairArguments),
    /// Make, list and revoke API keys, also while the server runs
    ///
    /// The keys are in the configured database. A new key opens, and a revoked one is refused, from the next request on.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Subcommand)]
enum KeysCommand {
    /// Make a key and print it, this once: only its hash is kept
    ///
    /// The key alone goes to standard output, what is to be known about it to standard error:
    /// `KEY=$(sportello keys create --scope booking --name Prenotazioni)`.
    Create {
        /// What the key opens: booking systems, running meetings, finding recordings, or reading metrics.
        #[arg(long, value_parser = scope_parser())]
        scope: Scope,
        /// Whose key it is, for the list: 1 to 100 characters.
        #[arg(long, value_name = "NAME")]
        name: String,
        /// Configuration file (TOML) of the node.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// List every key there ever was, oldest first: id, scope, when it was made and revoked, name
    List {
        /// Print one JSON array instead: objects with id, scope, name, created and revoked (null: valid).
        #[arg(long)]
        json: bool,
        /// Configuration file (TOML) of the node.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Revoke a key for ever; running servers refuse it from the next request on
    Revoke {
        /// The key's id, from `sportello keys list`; not the key itself.
        // Text, not `KeyId`: clap would print what it cannot parse, which may be the key.
        id: String,
        /// Configuration file (TOML) of the node.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

fn scope_parser() -> impl clap::builder::TypedValueParser<Value = Scope> {
    let known = |name: String| Scope::ALL.into_iter().find(|scope| scope.name() == name).ok_or("no such scope");
    PossibleValuesParser::new(Scope::ALL.map(Scope::name)).try_map(known)
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print «ok», or every wrong value with its key, where it comes from and what is allowed
    Check {
        /// Configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print the values in force and where each comes from; passwords are left out
    Show {
        /// Configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve { config } => serve(&Sources::new(config.as_deref())),
        Command::Demo { listen, data_dir, expose } => demo(listen, &data_dir, expose),
        Command::Verify(arguments) => recordings::verify(&arguments),
        Command::Export(arguments) => recordings::export(&arguments),
        Command::Repair(arguments) => recordings::repair(&arguments),
        Command::Keys(command) => run_keys(&command),
        Command::Config(ConfigCommand::Check { config }) => check_config(&Sources::new(config.as_deref())),
        Command::Config(ConfigCommand::Show { config }) => show_config(&Sources::new(config.as_deref())),
    }
}

fn serve(sources: &Sources) -> ExitCode {
    run(sources, async |node| {
        for (scope, key) in node.new_keys() {
            say(&format!("{} key: {}", scope.name(), key.expose()));
        }
        if !node.new_keys().is_empty() {
            say("These keys are shown this once: only their hashes are kept.");
        }
        say(&format!("Sportello is listening on http://{}", node.address()));
        Ok(())
    })
}

fn demo(listen: SocketAddr, data_dir: &Path, expose: bool) -> ExitCode {
    if !listen.ip().is_loopback() && !expose {
        complain(&format!(
            "--listen {listen}: other machines could reach it, and the demo shows every code. Use a loopback address \
             like 127.0.0.1:{}, or say --expose.",
            listen.port()
        ));
        return USAGE.into();
    }
    let announce: Vec<_> = local_addresses().iter().map(ToString::to_string).collect();
    let preset = [
        ("media.announce", announce.into()),
        ("media.first_port", 0.into()),
        ("log.filter", "warn,sportello=info".into()),
        // Newcomers open the files in any player.
        ("recording.encrypt", false.into()),
    ];
    let sources = Sources::with_preset(&preset)
        .with("http.listen", &listen.to_string())
        .with("storage.data_dir", &data_dir.display().to_string());
    let recordings = data_dir.join("recordings").display().to_string();
    run(&sources, async |node| {
        let (keys, messages) = node.add_demo().await?;
        for (scope, key) in keys {
            say(&format!("{scope} key: {key}"));
        }
        for message in messages {
            say(&format!("{:<10} {}  code {}  ({})", message.role, message.join_url, message.code, message.name));
        }
        say(&format!("Recordings go to {recordings}."));
        say(if node.encrypts_recordings() {
            "They are encrypted, as the environment says."
        } else {
            "They are NOT encrypted, so that any player opens them; `sportello serve` encrypts them."
        });
        say(&format!("Sportello demo is listening on http://{}", node.address()));
        Ok(())
    })
}

/// Starts a node, lets `greet` speak once it listens, and runs it until a signal.
fn run(sources: &Sources, greet: impl AsyncFnOnce(&mut Node) -> Result<(), StartError>) -> ExitCode {
    let config = match sources.read() {
        Ok(config) => config,
        Err(problems) => return wrong_configuration(&problems),
    };
    if let Err(error) = telemetry::start_log(&config.log) {
        complain(&error.to_string());
        return FAILED;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start threads: {error}"));
            return FAILED;
        }
    };
    runtime.block_on(async {
        // Before anything is started, so that no signal finds us without an answer.
        let stop = match stop_signal() {
            Ok(stop) => stop,
            Err(error) => {
                complain(&format!("cannot listen to signals: {error}"));
                return FAILED;
            }
        };
        let started = async {
            let mut node = Node::start(&config).await?;
            greet(&mut node).await?;
            Ok::<_, StartError>(node)
        };
        let node = match started.await {
            Ok(node) => node,
            Err(StartError::Config(problems)) => return wrong_configuration(&problems),
            Err(error) => {
                complain(&error.to_string());
                return FAILED;
            }
        };
        match node.run(stop).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain(&error.to_string());
                FAILED
            }
        }
    })
}

/// The first SIGINT or SIGTERM ends the future; the second ends the process.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (first, stopped) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let mut first = Some(first);
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            match first.take() {
                // Nobody waits yet, or any more: the next signal will end it.
                Some(first) => drop(first.send(())),
                None => std::process::exit(1),
            }
        }
    });
    Ok(async {
        let _stopped = stopped.await;
    })
}

fn run_keys(command: &KeysCommand) -> ExitCode {
    let (KeysCommand::Create { config, .. } | KeysCommand::List { config, .. } | KeysCommand::Revoke { config, .. }) =
        command;
    let config = match Sources::new(config.as_deref()).read() {
        Ok(config) => config,
        Err(problems) => return wrong_configuration(&problems),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start: {error}"));
            return FAILED;
        }
    };
    let done = runtime.block_on(async {
        let keys = Keys::open(&config).await?;
        let done = change_or_list(&keys, command).await;
        keys.close().await;
        done
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            if matches!(error, keys::Error::BadName | keys::Error::BadId) { USAGE.into() } else { FAILED }
        }
    }
}

async fn change_or_list(keys: &Keys, command: &KeysCommand) -> Result<(), keys::Error> {
    match command {
        KeysCommand::Create { scope, name, .. } => {
            let (id, key) = keys.create(*scope, name).await?;
            say(key.expose());
            complain(&format!(
                "This is the key, shown this once: only its hash is kept. Its scope is {}, its id {id}; `sportello keys \
                 revoke {id}` ends it.",
                scope.name()
            ));
        }
        KeysCommand::List { json: true, .. } => {
            let list: Vec<_> = keys.list().await?.iter().map(key_json).collect();
            say(&serde_json::Value::from(list).to_string());
        }
        KeysCommand::List { .. } => {
            let list = keys.list().await?;
            say(&format!("{:<36}  {:<10}  {:<20}  {:<20}  NAME", "ID", "SCOPE", "CREATED", "REVOKED"));
            for key in list {
                let revoked = key.revoked.map_or_else(|| "-".into(), |at| format!("{at:.0}"));
                let created = format!("{:.0}", key.created);
                say(&format!("{}  {:<10}  {created:<20}  {revoked:<20}  {}", key.id, key.scope.name(), key.name));
            }
        }
        KeysCommand::Revoke { id, .. } => {
            let id = id.parse().map_err(|_| keys::Error::BadId)?;
            let key = keys.revoke(id).await?;
            say(&format!("revoked {id} ({}, «{}»)", key.scope.name(), key.name));
        }
    }
    Ok(())
}

fn key_json(key: &ApiKey) -> serde_json::Value {
    json!({
        "id": key.id, "scope": key.scope, "name": key.name,
        "created": key.created.to_string(), "revoked": key.revoked.map(|at| at.to_string()),
    })
}

fn check_config(sources: &Sources) -> ExitCode {
    match sources.read().and_then(|config| config.profiles().and_then(|_| config.calendar())) {
        Ok(_) => {
            say("ok");
            ExitCode::SUCCESS
        }
        Err(problems) => wrong_configuration(&problems),
    }
}

fn show_config(sources: &Sources) -> ExitCode {
    match sources.show() {
        Ok(text) => {
            say(text.trim_end());
            ExitCode::SUCCESS
        }
        Err(problems) => wrong_configuration(&problems),
    }
}

fn wrong_configuration(problems: &Problems) -> ExitCode {
    complain(&problems.to_string());
    USAGE.into()
}

/// Writes a line for people and programs. A reader that is gone is no reason to stop.
fn say(line: &str) {
    let _written = writeln!(io::stdout().lock(), "{line}");
}

/// Writes a line about what went wrong.
fn complain(line: &str) {
    let _written = writeln!(io::stderr().lock(), "{line}");
}
