//! The loopback address where a browser comes back to, with a code. Any process of the host can dial it, so that only who
//! brings the state that the browser was sent away with is listened to.

use std::{io, sync::Arc, time::Duration};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use oauth2::url::Url;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};

/// Where exactly.
pub(super) const PATH: &str = "/callback";
/// For a request's head.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest head that is read: codes are short, but some are tokens.
const MAX_HEAD: usize = 32 << 10;
/// The most connections at once.
const MOST: usize = 32;

/// The code, or the provider's error.
type Came = Result<String, String>;

/// Waits for the one request that is the browser's, and answers it and all others.
pub(super) async fn wait(listener: TcpListener, state: &str, issuer: &str) -> io::Result<Came> {
    let (tell, mut told) = mpsc::channel(1);
    let places = Arc::new(Semaphore::new(MOST));
    let expected: Arc<(String, String)> = Arc::new((state.to_owned(), issuer.to_owned()));
    loop {
        let stream = tokio::select! {
            Some(came) = told.recv() => return Ok(came),
            accepted = listener.accept() => accepted?.0,
        };
        // One more is closed: others hold the places for seconds at most.
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let (tell, expected) = (tell.clone(), expected.clone());
        tokio::spawn(async move {
            if let Ok(Some(came)) = tokio::time::timeout(PATIENCE, answer(stream, &expected)).await {
                let _ = tell.try_send(came);
            }
            drop(place);
        });
    }
}

/// Reads one request and answers it; what it brings, if it is the browser's.
async fn answer(mut stream: TcpStream, (state, issuer): &(String, String)) -> Option<Came> {
    let mut head = Vec::new();
    while !head.windows(4).any(|it| it == b"\r\n\r\n") {
        let mut part = [0; 4096];
        match stream.read(&mut part).await {
            Ok(length) if length > 0 && head.len() + length <= MAX_HEAD => head.extend_from_slice(&part[..length]),
            _ => return None,
        }
    }
    let came = read(&head, state, issuer);
    let (status, text) = match &came {
        Ok(Ok(_)) => ("200 OK", "This login goes on in the terminal. You can close this page."),
        Ok(Err(_)) => ("200 OK", "The provider refused this login: the terminal tells why. You can close this page."),
        Err(why) => ("400 Bad Request", *why),
    };
    let page = format!("<!doctype html><meta charset=utf-8><title>Chaperone</title><p>{text}\n");
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
         content-security-policy: default-src 'none'; frame-ancestors 'none'\r\nreferrer-policy: no-referrer\r\n\
         x-content-type-options: nosniff\r\nconnection: close\r\n\r\n{page}",
        page.len()
    );
    // Whether or not the browser is there to read it.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
    came.ok()
}

/// What a request brings, if it is the browser's; else why it isn't.
fn read(head: &[u8], state: &str, issuer: &str) -> Result<Came, &'static str> {
    let unknown = "There is nothing here.";
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| unknown)?;
    let target = line.strip_prefix("GET ").and_then(|rest| rest.split_once(' ')).map(|(target, _)| target);
    let target = target.filter(|it| it.starts_with('/')).ok_or(unknown)?;
    let url = Url::parse(&format!("http://127.0.0.1{target}")).map_err(|_| unknown)?;
    if url.path() != PATH {
        return Err(unknown);
    }
    let one = |name: &str| {
        let mut found = url.query_pairs().filter(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        match (found.next(), found.next()) {
            (one, None) => Ok(one),
            _ => Err("This login says something twice."),
        }
    };
    let is_state = |it: String| verify_slices_are_equal(it.as_bytes(), state.as_bytes()).is_ok();
    if !one("state")?.is_some_and(is_state) {
        return Err("This is not the login that the terminal waits for: begin it there.");
    }
    // RFC 9207: where it says who it is from, it must be from whom it was asked.
    if one("iss")?.is_some_and(|from| from != issuer) {
        return Err("This login is from another provider.");
    }
    match (one("code")?, one("error")?) {
        (Some(code), None) if !code.is_empty() => Ok(Ok(code)),
        (None, Some(error)) => Ok(Err(error)),
        _ => Err("This login has no code."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_browser_that_was_sent_away_is_listened_to() {
        let came = |target: &str| {
            read(format!("GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").as_bytes(), "st", "https://a.example").ok()
        };
        assert_eq!(came("/callback?code=c%20d&state=st"), Some(Ok("c d".into())));
        assert_eq!(came("/callback?code=c&state=st&iss=https%3A%2F%2Fa.example"), Some(Ok("c".into())));
        assert_eq!(came("/callback?error=access_denied&state=st"), Some(Err("access_denied".into())));
        for wrong in [
            "/callback?code=c",
            "/callback?code=c&state=",
            "/callback?code=c&state=s",
            "/callback?code=c&state=stt",
            "/callback?code=c&state=st&state=st",
            "/callback?code=c&code=d&state=st",
            "/callback?code=c&error=e&state=st",
            "/callback?code=&state=st",
            "/callback?state=st",
            "/callback?code=c&state=st&iss=https%3A%2F%2Fb.example",
            "/?code=c&state=st",
            "/callback/x?code=c&state=st",
            "//evil.example/callback?code=c&state=st",
            "http://127.0.0.1/callback?code=c&state=st",
            "*",
            "",
        ] {
            assert_eq!(came(wrong), None, "{wrong}");
        }
        for head in ["POST /callback?code=c&state=st HTTP/1.1\r\n\r\n", "GET\r\n\r\n", "\r\n\r\n", "\u{0}"] {
            assert!(read(head.as_bytes(), "st", "i").is_err(), "{head:?}");
        }
    }

    #[tokio::test]
    async fn who_says_nothing_or_too_much_holds_nobody_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let waits = tokio::spawn(async move { wait(listener, "st", "i").await.unwrap() });
        let mut silent = Vec::new();
        for _ in 0..MOST - 1 {
            silent.push(TcpStream::connect(at).await.unwrap());
        }
        let mut much = TcpStream::connect(at).await.unwrap();
        let _ = much.write_all(&vec![b'x'; 2 * MAX_HEAD]).await;
        let mut end = Vec::new();
        let _ = much.read_to_end(&mut end).await;
        assert!(end.is_empty(), "too long a head is no question");
        let ask = async |target: &str| {
            let mut stream = TcpStream::connect(at).await.unwrap();
            stream.write_all(format!("GET {target} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        };
        assert!(ask("/callback?code=c&state=other").await.starts_with("HTTP/1.1 400"));
        assert!(ask("/callback?code=c&state=st").await.starts_with("HTTP/1.1 200"));
        assert_eq!(waits.await.unwrap(), Ok("c".to_owned()));
    }
}
