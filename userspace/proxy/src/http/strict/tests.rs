//! Framing that two readers could take in two ways, and framing that is clear, in pieces of every size.

use super::*;
use futures_util::FutureExt as _;
use tokio::io::AsyncReadExt;

/// Reads a whole conversation in pieces of `step` bytes.
fn read(bytes: &[u8], role: Role, step: usize) -> io::Result<Vec<u8>> {
    let mut builder = tokio_test_io(bytes, step);
    let mut strict = Strict::new(&mut builder, role);
    let mut out = Vec::new();
    // Pending: nothing more is read after a refusal.
    while let Some(read) = strict.read_buf(&mut out).now_or_never() {
        if read? == 0 {
            break;
        }
    }
    Ok(out)
}

/// A reader that gives `step` bytes at a time.
fn tokio_test_io(bytes: &[u8], step: usize) -> Pieces {
    Pieces { bytes: bytes.to_vec(), step }
}

struct Pieces {
    bytes: Vec<u8>,
    step: usize,
}

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = self.step.min(self.bytes.len()).min(buf.remaining());
        buf.put_slice(&self.bytes[..count]);
        self.bytes.drain(..count);
        Poll::Ready(Ok(()))
    }
}

/// A request whose body is wrong is a request all the same, to be answered and recorded.
#[tokio::test]
async fn what_came_before_a_violation_goes_on() {
    let head = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    for step in [1, 7, 1000] {
        let mut strict =
            Strict::new(tokio_test_io(&[head.as_slice(), b"no\r\n"].concat(), step), Role::Requests(Arc::default()));
        let mut read = Vec::new();
        let error = strict.read_to_end(&mut read).await.unwrap_err();
        assert!(error.to_string().contains("chunk size"), "{error}");
        assert_eq!(read, head, "in steps of {step}");
    }
}

fn request(bytes: &[u8]) -> Result<(), String> {
    let mut outcomes = Vec::new();
    for step in [1, 7, bytes.len()] {
        let told = Arc::new(Heads::default());
        let outcome = match read(bytes, Role::Requests(told.clone()), step) {
            Err(error) => Err(error.to_string()),
            Ok(out) => {
                let told = told.violation();
                if told.is_none() {
                    assert_eq!(out, bytes, "what is let through is what came");
                }
                told.map_or(Ok(()), |Violation(why)| Err(why.to_owned()))
            }
        };
        outcomes.push(outcome);
    }
    assert!(outcomes.iter().all(|it| *it == outcomes[0]), "the same in every cut: {outcomes:?}");
    outcomes.remove(0)
}

#[test]
fn ordinary_requests_pass_unchanged() {
    for good in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PUT /a%20b?x=1&y HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nx-amz-checksum-crc32: AA==\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, TE\r\nX-Y:\t v \r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        // AWS answers this by itself: 417.
        "PUT / HTTP/1.1\r\nHost: a\r\nExpect: a-miracle\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5; x = \"y;z\" ;w\r\nhello\r\n0;x\r\n\r\n",
    ] {
        request(good.as_bytes()).unwrap_or_else(|why| panic!("{good:?}: {why}"));
    }
}

/// RFC 9112, 2.2. They don't go on, so that a connection with nothing else is as idle as before.
#[test]
fn empty_lines_before_a_request_are_ignored() {
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let put = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok";
    for (bytes, expected) in [
        (format!("\r\n{get}"), get.to_owned()),
        (format!("\r\n\r\n{get}\r\n\r\n\r\n{put}\r\n{get}"), format!("{get}{put}{get}")),
        ("\r\n".to_owned(), String::new()),
        (format!("{put}\r\n"), put.to_owned()),
    ] {
        for step in [1, 2, 3, 7, bytes.len()] {
            let told = Arc::new(Heads::default());
            let out = read(bytes.as_bytes(), Role::Requests(told.clone()), step).unwrap();
            assert_eq!(String::from_utf8_lossy(&out), expected, "{bytes:?} in steps of {step}");
            assert_eq!(told.violation(), None, "{bytes:?} in steps of {step}");
        }
    }
    let mut strict = Strict::new(tokio_test_io(b"\r\n", 2), Role::Requests(Arc::default()));
    assert_eq!(strict.read_buf(&mut Vec::new()).now_or_never().unwrap().unwrap(), 0);
    assert!(strict.is_between());
}

/// Shapes from the request smuggling literature, each with the word that its refusal must carry.
#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    let bad: &[(&[u8], &str)] = &[
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", "both"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nContent-Length: 6\r\n\r\nabcdef", "two Content-Length"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +6\r\n\r\nabcdef", "digits"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6, 6\r\n\r\nabcdef", "digits"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x6\r\n\r\nabcdef", "digits"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "other than chunked"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "other than chunked"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", "token"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
            "two Transfer",
        ),
        (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.0"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n", "folded"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "one Host"),
        (b"GET / HTTP/1.1\r\n\r\n", "one Host"),
        (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", "absolute"),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "asterisk"),
        (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", "fragment"),
        (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", "percent-encoded"),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "three words"),
        (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "three words"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\nY: b\r\n\r\n", "control"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", "control"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", "control"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x0ca\r\n\r\n", "control"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\r\n\r\n", "control"),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0cchunked\r\n\r\n0\r\n\r\n", "control"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x-amz-date\r\n\r\n", "Connection"),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT"),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", "version"),
        (b"\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "empty line"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: a\r\nExpect: 100-continue\r\n\r\n", "two Expect"),
        // Of these no end would ever come: they must not be waited for.
        (b"GET / HTTP/1.1\nHost: a\n\n", "alone"),
        (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "alone"),
        (b"GET / HTTP/1.1\r\nHost: a\n", "alone"),
        (b"GET / HTTP/1.1\rHost: a\r\r", "alone"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\n", "alone"),
        (b"GET / HTTP/1.1\r\nHost: a\r\r\n", "control"),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n", "alone"),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\rhello", "alone"),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: y\n\n", "alone"),
        // A quoted text that one reader ends with its line, and another doesn't.
        (b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"\r\nhello\r\n0\r\n\r\n\"", "extension"),
        (
            b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\\\"\r\nhello\r\n0\r\n\r\n",
            "extension",
        ),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\"\r\nhello\r\n0\r\n\r\n", "extension"),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;\r\nhello\r\n0\r\n\r\n", "extension"),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\r\nhello\r\n0\r\n\r\n", "extension"),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;\0\r\nhello\r\n0\r\n\r\n", "extension"),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n", "digits"),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", "digits"),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n", "longer"),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n", "trailer"),
    ];
    for (bytes, word) in bad {
        let shown = String::from_utf8_lossy(bytes);
        let why = request(bytes).expect_err(&shown);
        assert!(why.contains(word), "{shown:?}: {why}");
    }
}

/// What came before a refused head still arrives, and the stand-in is never taken for a body.
#[test]
fn a_refused_head_leaves_what_came_before_it_whole() {
    let good = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let bytes = [good.as_slice(), b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
    for step in [1, 20, good.len() - 3, bytes.len()] {
        let told = Arc::new(Heads::default());
        let out = read(&bytes, Role::Requests(told.clone()), step).unwrap();
        let stand_in = out.strip_prefix(good.as_slice()).unwrap();
        assert!(stand_in.starts_with(b"GET / HTTP/1.1\r\nHost: a\r\n"), "{}", stand_in.escape_ascii());
        assert!(told.violation().is_some());
    }
}

#[test]
fn a_head_without_end_is_refused_in_bounded_memory() {
    let mut endless = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    endless.extend(b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(4096));
    assert!(request(&endless).unwrap_err().contains("larger"));
}

#[test]
fn odd_answers_are_refused() {
    let answer = |bytes: &[u8], head: bool| {
        read(bytes, Role::Answers(Arc::new(AtomicBool::new(head))), 5).map_err(|error| error.to_string())
    };
    for good in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200\r\n\r\nuntil close",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    ] {
        assert_eq!(answer(good.as_bytes(), false).unwrap(), good.as_bytes());
    }
    answer(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", true).unwrap();
    // What has one meaning goes on: a length that is said again, an object with much metadata, and an answer that never
    // has a body. What comes after that one is nobody's.
    for good in ["Content-Length: 2\r\nContent-Length: 2", "Content-Length: 2, 2"] {
        let bytes = format!("HTTP/1.1 200 OK\r\n{good}\r\n\r\nok");
        assert_eq!(answer(bytes.as_bytes(), false).unwrap(), bytes.as_bytes());
    }
    let many: String = (0..1000).map(|n| format!("x-amz-meta-{n}: {n}\r\n")).collect();
    answer(format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 2\r\n\r\nok").as_bytes(), false).unwrap();
    for head in [
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n",
    ] {
        let bytes = format!("{head}0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n");
        assert_eq!(answer(bytes.as_bytes(), false).unwrap(), head.as_bytes());
    }
    for (bad, word) in [
        ("HTTP/1.1 2000 OK\r\n\r\n", "three digits"),
        ("HTTP/1.1  200 OK\r\n\r\n", "three digits"),
        ("HTTP/1.1 999 OK\r\n\r\n", "three digits"),
        ("HTTP/9.9 200 OK\r\n\r\n", "begin"),
        ("HTTP/1.1 101 Relay\r\n\r\n", "101"),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Relay\r\nUpgrade: websocket\r\n\r\n", "101"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok", "two Content-Length"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nok", "two Content-Length"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1,\r\n\r\nok", "digits"),
        ("HTTP/1.1 200 OK\nContent-Length: 1\n\nok", "alone"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "both"),
        ("HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\nok", "no body"),
    ] {
        let why = answer(bad.as_bytes(), false).expect_err(bad);
        assert!(why.contains(word), "{bad:?}: {why}");
    }
}

#[test]
fn only_a_handshakes_answer_may_switch() {
    let answer = |bytes: &[u8]| read(bytes, Role::Handshake, 5).map_err(|error| error.to_string());
    for good in [
        "HTTP/1.1 101 Relay Protocols\r\nUpgrade: websocket\r\n\r\n\x01\r\n\r\n\x02 anything",
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
    ] {
        assert_eq!(answer(good.as_bytes()).unwrap(), good.as_bytes());
    }
    for bad in [
        "HTTP/1.1 101 Relay Protocols\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Relay Protocols\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 1O1 Relay\r\n\r\n",
    ] {
        answer(bad.as_bytes()).expect_err(bad);
    }
}
