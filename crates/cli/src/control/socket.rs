//! The Unix socket in the data folder, by which `peerage status` and its like talk to the node that runs there.
//!
//! Only the owner of the folder can open it (mode 0600, from its first moment on: it is bound in a private folder and moved into place). A socket that a
//! killed node left behind is replaced: the lock on the data folder says that no other node runs.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::session::{self, Commands, End, Tell};

/// The socket's name in the data folder.
const NAME: &str = "control.sock";
/// The private folder in which it is made.
const CRADLE: &str = ".control";
/// Sessions at once; another one is told so and closed.
pub(crate) const MAX_SESSIONS: usize = 16;
/// A longer path doesn't fit a socket address.
const MAX_PATH: usize = 100;

/// The socket of a running node. It is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    path: PathBuf,
    listener: UnixListener,
}

impl Listener {
    /// Opens the socket in a data folder whose lock is held.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn open(data: &Path) -> io::Result<Self> {
        let cradle = data.join(CRADLE);
        remove(&cradle.join(NAME))?;
        match fs::DirBuilder::new().mode(0o700).create(&cradle) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => fs::set_permissions(&cradle, fs::Permissions::from_mode(0o700))?,
        }
        let listener = in_short(&cradle, |path| UnixListener::bind(path))?;
        fs::set_permissions(cradle.join(NAME), fs::Permissions::from_mode(0o600))?;
        let path = data.join(NAME);
        fs::rename(cradle.join(NAME), &path)?;
        fs::remove_dir(&cradle)?;
        Ok(Self { path, listener })
    }

    /// Serves sessions until one of them says stop.
    pub(crate) async fn serve<C: Commands>(&self, commands: Arc<C>) {
        let mut sessions = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                Some(ended) = sessions.join_next() => if let Ok(End::Stop) = ended {
                    return;
                },
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) if sessions.len() >= MAX_SESSIONS => refuse(stream).await,
                    Ok((stream, _)) => {
                        let commands = commands.clone();
                        sessions.spawn(async move {
                            let (input, output) = stream.into_split();
                            session::serve(commands, BufReader::new(input), output, Tell::Replies).await
                        });
                    }
                    Err(error) => {
                        // Such as too many open files: others may be closed meanwhile.
                        tracing::warn!(%error, "a command session could not be opened");
                        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    }
                },
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = remove(&self.path);
    }
}

/// Connects to the node that runs on a data folder.
///
/// # Errors
/// What the system says; [`io::ErrorKind::NotFound`] and [`io::ErrorKind::ConnectionRefused`] mean that none runs.
pub(crate) async fn connect(data: &Path) -> io::Result<UnixStream> {
    let stream = in_short(data, |path| std::os::unix::net::UnixStream::connect(path))?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Uses the path of the socket in a folder, in a form that is short enough for a socket address.
fn in_short<T>(folder: &Path, work: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = folder.join(NAME);
    if path.as_os_str().len() <= MAX_PATH {
        return work(&path);
    }
    let open = File::open(folder)?;
    work(&Path::new("/proc/self/fd").join(open.as_raw_fd().to_string()).join(NAME))
}

async fn refuse(mut stream: UnixStream) {
    let line = format!(
        "{{\"id\":null,\"error\":\"{MAX_SESSIONS} command sessions are open already: try again later\"}}\n"
    );
    let _ = stream.write_all(line.as_bytes()).await;
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
