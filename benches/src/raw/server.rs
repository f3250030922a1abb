//! The server's side: every stream does what its first byte says.

use peerage_bench_peer::{Outcome, SMALL, Served, Service};
use quinn::{Connection, RecvStream};

use super::stream::RawStream;
use super::{Form, endpoint};

pub(super) fn serve(form: Form) -> Outcome<Served> {
    let endpoint = endpoint(form, true, None)?;
    let address = endpoint.local_addr()?.to_string();
    let service = Service::default();
    let keep = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                if let Ok(connection) = incoming.await {
                    tokio::join!(
                        both_ways(&connection, &service, form.tuned),
                        one_way(&connection, &service),
                    );
                }
            });
        }
    });
    Ok(Served { address, keep: Box::new(keep) })
}

async fn both_ways(connection: &Connection, service: &Service, chunks: bool) {
    while let Ok((send, recv)) = connection.accept_bi().await {
        let service = service.clone();
        // Streams that end with their connection are no news.
        tokio::spawn(async move { service.serve(RawStream::new(send, recv, chunks)).await.ok() });
    }
}

async fn one_way(connection: &Connection, service: &Service) {
    while let Ok(stream) = connection.accept_uni().await {
        let service = service.clone();
        tokio::spawn(async move { take(stream, &service).await });
    }
}

async fn take(mut stream: RecvStream, service: &Service) {
    if stream.read_exact(&mut [0; SMALL]).await.is_ok() {
        service.arrivals.note();
    }
}
