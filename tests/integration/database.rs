//! A database of a test's own, of either kind.
//!
//! `SPORTELLO_TEST_POSTGRES` names a PostgreSQL server whose user may create databases; the test command starts one for
//! the whole run. Without it, each test that wants one starts `.ci/postgres` itself: slower, and the same.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use uuid::Uuid;

/// Where a server keeps its rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Database {
    /// A file in the server's data folder.
    Sqlite,
    /// A database on a PostgreSQL server.
    Postgres,
}

/// An empty PostgreSQL database, dropped in the end.
pub(crate) struct Postgres {
    /// For the server under test.
    pub url: String,
    name: String,
    server: Arc<PostgresServer>,
}

impl Postgres {
    pub(crate) async fn create() -> Self {
        Self::create_on(Arc::new(PostgresServer::find())).await
    }

    /// Every row of every table, as text.
    pub(crate) async fn dump(&self) -> String {
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        let tables = sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'");
        let tables: Vec<String> = tables.fetch_all(&mut connection).await.unwrap();
        assert!(!tables.is_empty());
        let mut dump = String::new();
        for table in tables {
            let rows = format!("SELECT coalesce(string_agg(row::text, chr(10)), '') FROM \"{table}\" row");
            let rows: String = sqlx::query_scalar(AssertSqlSafe(rows)).fetch_one(&mut connection).await.unwrap();
            dump.push_str(&rows);
            dump.push('\n');
        }
        connection.close().await.unwrap();
        dump
    }

    async fn create_on(server: Arc<PostgresServer>) -> Self {
        let name = format!("sportello_{}", Uuid::now_v7().simple());
        run(&server.url, &format!("CREATE DATABASE {name}")).await;
        let (address, _) = server.url.rsplit_once('/').expect("the URL ends with a database's name");
        Self { url: format!("{address}/{name}"), name, server }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A server that was killed may have left connections behind: they are cut.
        let (url, order) = (self.server.url.clone(), format!("DROP DATABASE {} WITH (FORCE)", self.name));
        // The test's own runtime may be the one that is dropping us.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run(&url, &order));
        });
        if dropped.join().is_err() {
            eprintln!("the database {} is left behind", self.name);
        }
    }
}

async fn run(url: &str, order: &str) {
    let mut connection = PgConnection::connect(url).await.expect("SPORTELLO_TEST_POSTGRES answers");
    connection.execute(AssertSqlSafe(order.to_owned())).await.unwrap();
    connection.close().await.unwrap();
}

/// The server of this run, or one of our own.
struct PostgresServer {
    url: String,
    own: Option<Child>,
}

impl PostgresServer {
    fn find() -> Self {
        if let Ok(url) = std::env::var("SPORTELLO_TEST_POSTGRES") {
            return Self { url, own: None };
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/postgres");
        let mut child = Command::new("bash").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        assert!(url.starts_with("postgres://"), "no PostgreSQL to test with: see what .ci/postgres said above");
        Self { url: url.trim().to_owned(), own: Some(child) }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if let Some(mut script) = self.own.take() {
            // It serves until its input ends.
            drop(script.stdin.take());
            let _ = script.wait();
        }
    }
}

#[tokio::test]
async fn a_tests_own_database_is_gone_afterwards_even_if_someone_still_holds_it() {
    let count = async |admin: &str, name: &str| -> i64 {
        let mut connection = PgConnection::connect(admin).await.unwrap();
        let count = sqlx::query_scalar("SELECT count(*) FROM pg_database WHERE datname = $1").bind(name);
        count.fetch_one(&mut connection).await.unwrap()
    };
    let server = Arc::new(PostgresServer::find());
    let database = Postgres::create_on(Arc::clone(&server)).await;
    let name = database.name.clone();
    let _held = PgConnection::connect(&database.url).await.unwrap();
    assert_eq!(count(&server.url, &name).await, 1);
    drop(database);
    assert_eq!(count(&server.url, &name).await, 0);
}
