//! What the driver does on plain streams: echo and perf, both sides of each.

use std::{io, time::Duration};

use futures::{
    io::{copy, ReadHalf, WriteHalf},
    AsyncReadExt, AsyncWriteExt,
};
use libp2p::{Stream, StreamProtocol};
use rand::{rngs::StdRng, RngCore, SeedableRng};

pub const ECHO: StreamProtocol = StreamProtocol::new("/interop/echo/1");
pub const PERF: StreamProtocol = StreamProtocol::new("/perf/1.0.0");

const CHUNK: usize = 64 * 1024;

/// Echoes what comes, while it comes, until the end of the stream; then finishes.
pub async fn serve_echo(stream: Stream) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    copy(reader, &mut writer).await?;
    writer.close().await
}

/// Sends random bytes and reads their echo at the same time; the echo must be the same bytes, and then end.
pub async fn echo(stream: Stream, bytes: u64) -> Result<(), String> {
    let seed = rand::random();
    let (reader, writer) = stream.split();
    let send =
        async { send_random(writer, bytes, seed).await.map_err(|error| format!("while sending: {error}")) };
    let compare = async {
        compare_random(reader, bytes, seed).await.map_err(|error| format!("while reading the echo: {error}"))
    };
    futures::try_join!(send, compare).map(drop)
}

async fn send_random(mut writer: WriteHalf<Stream>, bytes: u64, seed: u64) -> io::Result<()> {
    let mut source = StdRng::seed_from_u64(seed);
    let mut buffer = vec![0; CHUNK];
    for length in chunks(bytes) {
        source.fill_bytes(&mut buffer[..length]);
        writer.write_all(&buffer[..length]).await?;
    }
    writer.close().await
}

async fn compare_random(mut reader: ReadHalf<Stream>, bytes: u64, seed: u64) -> io::Result<()> {
    let mut source = StdRng::seed_from_u64(seed);
    let mut expected = vec![0; CHUNK];
    let mut buffer = vec![0; CHUNK];
    for length in chunks(bytes) {
        source.fill_bytes(&mut expected[..length]);
        reader.read_exact(&mut buffer[..length]).await?;
        if buffer[..length] != expected[..length] {
            return Err(io::Error::other("the bytes differ from what was sent"));
        }
    }
    expect_end(&mut reader).await
}

/// Reads how many bytes are wanted, drains the upload to its end, sends them, and finishes.
pub async fn serve_perf(mut stream: Stream) -> io::Result<()> {
    let mut wanted = [0; 8];
    stream.read_exact(&mut wanted).await?;
    copy(&mut stream, &mut futures::io::sink()).await?;
    send_zeros(&mut stream, u64::from_be_bytes(wanted)).await?;
    stream.close().await
}

/// Asks for `download` bytes, sends `upload` bytes, finishes, and counts what comes back.
pub async fn perf(mut stream: Stream, upload: u64, download: u64) -> Result<(), String> {
    let upload = async {
        stream.write_all(&download.to_be_bytes()).await?;
        send_zeros(&mut stream, upload).await?;
        stream.close().await
    };
    upload.await.map_err(|error| format!("while uploading: {error}"))?;
    let download = async {
        let mut buffer = vec![0; CHUNK];
        for length in chunks(download) {
            stream.read_exact(&mut buffer[..length]).await?;
        }
        expect_end(&mut stream).await
    };
    download.await.map_err(|error| format!("while downloading: {error}"))
}

async fn send_zeros(stream: &mut Stream, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; CHUNK];
    for length in chunks(bytes) {
        stream.write_all(&zeros[..length]).await?;
    }
    Ok(())
}

/// Ends a stream that carried nothing, and waits a moment for the other side to do so too: a stream that is dropped
/// before its end is stopped, which some implementations take badly.
pub async fn finish(mut stream: Stream) {
    let both_ends = async {
        stream.close().await?;
        copy(&mut stream, &mut futures::io::sink()).await
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), both_ends).await;
}

/// The lengths of the chunks that make up `total` bytes.
fn chunks(total: u64) -> impl Iterator<Item = usize> {
    let size = CHUNK as u64;
    (0..total.div_ceil(size)).map(move |index| (total - index * size).min(size) as usize)
}

pub async fn expect_end(reader: &mut (impl AsyncReadExt + Unpin)) -> io::Result<()> {
    match reader.read(&mut [0; 1]).await? {
        0 => Ok(()),
        _ => Err(io::Error::other("more bytes came than were asked for")),
    }
}
