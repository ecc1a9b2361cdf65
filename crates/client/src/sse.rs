//! Server-sent events, as far as the API uses them: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.

use bytes::BytesMut;

/// The longest event taken. Output comes in records of up to a mebibyte, in base64.
const MAX_EVENT: usize = 16 << 20;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// What kind: `message` unless it says otherwise.
    pub(crate) name: String,
    /// What it carries; several lines are joined by line feeds.
    pub(crate) data: Vec<u8>,
}

/// An event grew over [`MAX_EVENT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Takes bytes as they arrive and gives events as they are complete.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    buffer: BytesMut,
    /// So much of `buffer` is known to hold no line feed.
    searched: usize,
    name: Option<String>,
    data: Option<Vec<u8>>,
}

impl Parser {
    /// Takes the next bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() + self.data.as_ref().map_or(0, Vec::len) > MAX_EVENT + bytes.len() {
            return Err(TooLong);
        }
        Ok(())
    }

    /// The next complete event, if there is one.
    pub(crate) fn next(&mut self) -> Option<Event> {
        loop {
            let found = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
            let Some(end) = found.map(|at| at + self.searched) else {
                self.searched = self.buffer.len();
                return None;
            };
            let line = self.buffer.split_to(end + 1);
            self.searched = 0;
            let line = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
            if line.is_empty() {
                let name = self.name.take();
                // An event without data is none: that is how keep-alive comments end.
                if let Some(data) = self.data.take() {
                    return Some(Event { name: name.unwrap_or_else(|| "message".to_owned()), data });
                }
                continue;
            }
            self.field(line);
        }
    }

    fn field(&mut self, line: &[u8]) {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (field, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => self.name = Some(String::from_utf8_lossy(value).into_owned()),
            b"data" => match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => self.data = Some(value.to_vec()),
            },
            // Comments, ids (positions stand in the data too) and what is not known.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b": hello\n\nid: 1:0\nevent: output\ndata: {\"a\":1}\n\n: ping\n\ndata:x\r\ndata: y\r\n\r\nevent: half\ndata: z\n";

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.to_owned(), data: data.as_bytes().to_vec() }
    }

    #[test]
    fn events_are_found_however_the_bytes_are_cut() {
        for size in 1..=TEXT.len() {
            let mut parser = Parser::default();
            let mut events = Vec::new();
            for part in TEXT.chunks(size) {
                parser.push(part).expect("short");
                while let Some(event) = parser.next() {
                    events.push(event);
                }
            }
            assert_eq!(events, [event("output", "{\"a\":1}"), event("message", "x\ny")], "{size}");
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = Parser::default();
        let part = vec![b'x'; 1 << 20];
        let refused = (0..64).any(|_| {
            let result = parser.push(&part);
            assert_eq!(parser.next(), None);
            result.is_err()
        });
        assert!(refused);
    }
}
