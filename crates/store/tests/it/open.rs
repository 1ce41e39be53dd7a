//! Opening, and the one test that runs everything on PostgreSQL.

use trib_core::Code;
use trib_store::Store;
use trib_testkit::postgres_server::PostgresServer;

use crate::place::Place;

#[tokio::test]
async fn everything_holds_on_postgres() {
    let server = PostgresServer::shared().unwrap();
    let url = server.url(&server.create_database().unwrap());
    crate::lease::cases::all(&url).await;
    crate::scope::cases::all(&url).await;
    crate::run::cases::all(&url).await;
    crate::rejected::cases::all(&url).await;
    crate::table::cases::all(&url).await;
    many_open_at_once(&Place::at(&server.url(&server.create_database().unwrap()))).await;
}

#[tokio::test]
async fn many_open_one_file_at_once() {
    many_open_at_once(&Place::sqlite()).await;
}

async fn many_open_at_once(place: &Place) {
    let opening = (0..8).map(|i| async move { place.open().await.set_meta(&format!("k{i}"), "v").await });
    for opened in futures_join(opening).await {
        opened.unwrap();
    }
    assert_eq!(place.open().await.meta("k7").await.unwrap().as_deref(), Some("v"));
}

async fn futures_join<T: Send + 'static>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut done = Vec::new();
    let mut running: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        running.retain_mut(|f| match f.as_mut().poll(context) {
            std::task::Poll::Ready(value) => {
                done.push(value);
                false
            }
            std::task::Poll::Pending => true,
        });
        if running.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done
}

#[tokio::test]
async fn paths_of_every_kind() {
    let folder = tempfile::tempdir().unwrap();
    let absolute = folder.path().join("a b/%20 größe?#.db");
    let urls = ["deep/er/control.db", "sqlite:other.db", "up/../beside.db", absolute.to_str().unwrap()];
    for url in urls {
        Store::open(url, folder.path(), "dev").await.unwrap_or_else(|e| panic!("{url}: {e:?}"));
    }
    assert!(absolute.exists() && folder.path().join("beside.db").exists());
}

#[tokio::test]
async fn what_cannot_be_opened_says_why() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("text.db"), "x".repeat(5000)).unwrap();
    std::fs::create_dir(folder.path().join("folder.db")).unwrap();
    let cases = [
        ("text.db", Code::DataInvalid),
        ("folder.db", Code::Io),
        ("mysql://user:hunter2@host/db", Code::ConfigInvalid),
        ("postgres://user:hunter2@127.0.0.1:1/db", Code::ConnectionLost),
    ];
    for (url, code) in cases {
        let Err(error) = Store::open(url, folder.path(), "dev").await else { panic!("opened {url}") };
        assert_eq!(error.code(), code, "{url}: {error:?}");
        assert!(!error.to_json().to_string().contains("hunter2"), "{error:?}");
    }
}

#[tokio::test]
async fn environments_do_not_see_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let (dev, prod) = (Store::open("c.db", folder.path(), "dev").await.unwrap(), Store::open("c.db", folder.path(), "prod").await.unwrap());
    dev.set_meta("k", "v").await.unwrap();
    dev.pause("shop", "me", None).await.unwrap();
    assert_eq!(prod.meta("k").await.unwrap(), None);
    assert!(prod.paused().await.unwrap().is_empty());
    crate::place::lease(&dev).await;
    crate::place::lease(&prod).await;
}
