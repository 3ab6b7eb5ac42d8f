//! `multipart/form-data` (RFC 7578), as strictly as clients write it: fields, then one file, and nothing else.

use bytes::Bytes;
use memchr::memmem;

use crate::VerifyError;

/// S3 takes 20 KB of fields.
const MAX_FIELD_BYTES: usize = 64 * 1024;
const MAX_FIELDS: usize = 100;
const MAX_HEAD: usize = 4096;

const WRONG: VerifyError = VerifyError::Form("it is not the multipart/form-data that clients write");

/// A form, read.
pub(super) struct Form {
    boundary: String,
    /// In their order, without the file.
    fields: Vec<(String, String)>,
    file_head: String,
    file: Bytes,
}

impl Form {
    pub(super) fn read(content_type: &str, body: &Bytes) -> Result<Self, VerifyError> {
        let boundary = boundary(content_type).ok_or(WRONG)?;
        let between = format!("\r\n--{boundary}");
        let finder = memmem::Finder::new(&between);
        // The first has nothing before it.
        let mut at = between.len() - 2;
        if !body.starts_with(&between.as_bytes()[2..]) {
            return Err(WRONG);
        }
        let mut fields: Vec<(String, String)> = Vec::new();
        let mut held = 0;
        loop {
            let rest = body[at..].strip_prefix(b"\r\n").ok_or(WRONG)?;
            let end = memmem::find(&rest[..rest.len().min(MAX_HEAD)], b"\r\n\r\n").ok_or(WRONG)?;
            let head = std::str::from_utf8(&rest[..end]).map_err(|_| WRONG)?;
            let begin = at + 2 + end + 4;
            let length = finder.find(&body[begin..]).ok_or(WRONG)?;
            at = begin + length + between.len();
            let part = Part::read(head)?;
            if part.name.eq_ignore_ascii_case("file") {
                if ![&b"--"[..], b"--\r\n"].contains(&&body[at..]) {
                    return Err(VerifyError::Form("the file is not the last of it"));
                }
                let file_head = part.written();
                return Ok(Self { boundary, fields, file_head, file: body.slice(begin..begin + length) });
            }
            held += part.name.len() + length;
            let twice = fields.iter().any(|(name, _)| name.eq_ignore_ascii_case(part.name));
            if twice || part.filename.is_some() || held > MAX_FIELD_BYTES || fields.len() >= MAX_FIELDS {
                return Err(VerifyError::Form("a field comes twice, or there is too much of them"));
            }
            let value = std::str::from_utf8(&body[begin..begin + length]).map_err(|_| WRONG)?;
            fields.push((part.name.to_owned(), value.to_owned()));
        }
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.fields().find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The form without some fields and with others, which come before the file.
    pub(super) fn write(&self, without: &[&str], with: &[(&str, String)]) -> Bytes {
        let mut out = Vec::with_capacity(self.file.len() + 8192);
        let left = |name: &str| !without.iter().any(|it| it.eq_ignore_ascii_case(name));
        let kept = self.fields().filter(|(name, _)| left(name));
        for (name, value) in kept.chain(with.iter().map(|(name, value)| (*name, value.as_str()))) {
            let head = format!("--{}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n", self.boundary);
            out.extend_from_slice(head.as_bytes());
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(format!("--{}\r\n{}\r\n\r\n", self.boundary, self.file_head).as_bytes());
        out.extend_from_slice(&self.file);
        out.extend_from_slice(format!("\r\n--{}--\r\n", self.boundary).as_bytes());
        out.into()
    }
}

/// The head of one part.
struct Part<'a> {
    name: &'a str,
    filename: Option<&'a str>,
    kind: Option<&'a str>,
}

impl<'a> Part<'a> {
    fn read(head: &'a str) -> Result<Self, VerifyError> {
        let (mut disposition, mut kind) = (None, None);
        for line in head.split("\r\n") {
            let (name, value) = line.split_once(':').ok_or(WRONG)?;
            let place = match name.to_ascii_lowercase().as_str() {
                "content-disposition" => &mut disposition,
                "content-type" => &mut kind,
                _ => return Err(WRONG),
            };
            let value = value.trim_matches(' ');
            if value.bytes().any(|b| b.is_ascii_control()) || place.replace(value).is_some() {
                return Err(WRONG);
            }
        }
        let rest = disposition.and_then(|it| it.strip_prefix("form-data;")).ok_or(WRONG)?;
        let (name, rest) = quoted(rest, "name").ok_or(WRONG)?;
        let filename = match rest.strip_prefix(';') {
            None if rest.is_empty() => None,
            None => return Err(WRONG),
            Some(rest) => match quoted(rest, "filename") {
                Some((filename, "")) => Some(filename),
                _ => return Err(WRONG),
            },
        };
        Ok(Self { name, filename, kind })
    }

    fn written(&self) -> String {
        let filename = self.filename.map(|it| format!("; filename=\"{it}\"")).unwrap_or_default();
        let kind = self.kind.map(|it| format!("\r\nContent-Type: {it}")).unwrap_or_default();
        format!("Content-Disposition: form-data; name=\"{}\"{filename}{kind}", self.name)
    }
}

/// ` NAME="VALUE"`, and what is after it. Clients escape a quote as `%22`; a backslash is read in two ways.
fn quoted<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let text = text.trim_start_matches(' ').strip_prefix(name)?.strip_prefix("=\"")?;
    let (value, rest) = text.split_once('"')?;
    (!value.contains('\\')).then_some((value, rest))
}

/// RFC 2046, 5.1.1.
fn boundary(content_type: &str) -> Option<String> {
    let rest = content_type.get("multipart/form-data".len()..)?.trim_start_matches(' ').strip_prefix(';')?;
    let rest = rest.trim_start_matches(' ');
    let (name, value) = rest.split_once('=')?;
    let value = value.strip_prefix('"').map_or(Some(value), |it| it.strip_suffix('"'))?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(&b);
    let fits = (1..=70).contains(&value.len()) && value.bytes().all(allowed);
    (name.eq_ignore_ascii_case("boundary") && fits).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: &str = "multipart/form-data; boundary=XX";
    const FILE: &str =
        "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\ndata\r\n--XX--\r\n";

    fn field(name: &str, value: &str) -> String {
        format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    }

    #[test]
    fn what_clients_write_is_read_and_written_alike() {
        let body = field("a", "1") + &field("b", "2\r\n--X") + FILE;
        let form = Form::read(KIND, &body.clone().into()).unwrap();
        assert_eq!((form.get("A"), form.get("b"), form.get("c")), (Some("1"), Some("2\r\n--X"), None));
        assert_eq!(form.write(&[], &[]), body.as_bytes());
        let other = String::from_utf8(form.write(&["A"], &[("c", "3".into())]).to_vec()).unwrap();
        assert_eq!(other, field("b", "2\r\n--X") + &field("c", "3") + FILE);
        assert!(Form::read("multipart/form-data;boundary=\"XX\"", &body.into()).is_ok());
    }

    #[test]
    fn hostile_forms_are_refused() {
        let a = field("a", "1");
        for body in [
            String::new(),
            "--XX".into(),
            "--XX--\r\n".into(),
            a.clone(),
            format!("preamble\r\n{a}{FILE}"),
            format!("{a}{FILE}epilogue"),
            format!("{FILE}{a}"),
            format!("{a}{a}{FILE}"),
            format!("{a}{}{FILE}", field("A", "2")),
            format!("{}{FILE}", field("a\\\"", "1")),
            format!("{}{FILE}", field("a\"; filename=\"x", "1")),
            format!("{}{FILE}", field("a\"; other=\"x", "1")),
            format!("{}{FILE}", field("a", &"x".repeat(70_000))),
            format!("{}{FILE}", (0..200).map(|n| field(&n.to_string(), "")).collect::<String>()),
            format!("--XX\r\n{}: x\r\n\r\n\r\n{FILE}", "h".repeat(10_000)),
            a.replace("\r\n\r\n", "\r\nContent-Transfer-Encoding: base64\r\n\r\n") + FILE,
            a.replace("\r\n\r\n", "\n\n") + FILE,
            a.replace("form-data", "attachment") + FILE,
            FILE.replace("--XX--", "--XX"),
            FILE.replace("data\r\n", "data"),
        ] {
            let shown: String = body.chars().take(100).collect();
            assert!(Form::read(KIND, &body.into()).is_err(), "{shown}");
        }
        let not_utf8 =
            [field("a", "").replace("\r\n\r\n\r\n", "\r\n\r\n").as_bytes(), b"\xff\r\n", FILE.as_bytes()].concat();
        assert!(Form::read(KIND, &not_utf8.into()).is_err());
        for kind in ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=a b"] {
            assert!(Form::read(kind, &Bytes::from_static(FILE.as_bytes())).is_err(), "{kind}");
        }
        let long = format!("multipart/form-data; boundary={}", "X".repeat(71));
        assert!(Form::read(&long, &Bytes::from_static(FILE.as_bytes())).is_err());
    }
}
