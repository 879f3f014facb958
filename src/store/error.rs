//! What can go wrong, and what to do about it.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("store.url `{url}` is not usable: write `sqlite://` and a path, as sqlite://data/viva.db")]
    BadUrl { url: String },
    #[error(
        "the folder {} of the database cannot be made: {source}; create it, or set store.url to a place that this user \
         may write to",
        path.display()
    )]
    Folder { path: PathBuf, source: std::io::Error },
    #[error(
        "the database {} cannot be opened: {source}; check that this user may write to the file and to its folder, that \
         it is an SQLite database, or set store.url to another place",
        path.display()
    )]
    Open { path: PathBuf, source: sqlx::Error },
    #[error(
        "the tables of the database {} cannot be brought up to date: {source}; if a newer server made it, run that one, \
         or set store.url to another place",
        path.display()
    )]
    Migrate { path: PathBuf, source: sqlx::migrate::MigrateError },
    #[error("the database failed at `{operation}`: {source}")]
    Query { operation: &'static str, source: sqlx::Error },
    #[error("the database did not answer in time; see whether another program holds it, or its disk is slow or full")]
    Slow,
    #[error("the database holds `{value}` as {what}, which this version does not know")]
    Unknown { what: &'static str, value: String },
}
