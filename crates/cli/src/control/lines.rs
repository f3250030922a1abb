//! Lines of bounded length.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// One line, or what was wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line without its end.
    Text(String),
    /// A line that is longer than the bound; it was passed over.
    TooLong,
    /// A line that is not UTF-8.
    NotText,
}

/// Reads lines of at most `most` bytes each.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    input: R,
    most: usize,
    /// The beginning of the line that is being read; survives a dropped [`Lines::next`].
    line: Vec<u8>,
    too_long: bool,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(crate) fn new(input: R, most: usize) -> Self {
        Self { input, most, line: Vec::new(), too_long: false }
    }

    /// The next line; `None` at the end. Cancel-safe.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let chunk = match self.input.fill_buf().await {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                chunk => chunk?,
            };
            if chunk.is_empty() {
                return Ok(if self.line.is_empty() && !self.too_long { None } else { Some(self.take()) });
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            if self.line.len() + part.len() > self.most {
                self.too_long = true;
                self.line.clear();
            }
            if !self.too_long {
                self.line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            self.input.consume(used);
            if end.is_some() {
                return Ok(Some(self.take()));
            }
        }
    }

    fn take(&mut self) -> Line {
        let line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.too_long) {
            return Line::TooLong;
        }
        String::from_utf8(line).map_or(Line::NotText, Line::Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::BufReader;

    async fn lines(input: &[u8], chunk: usize) -> Vec<Line> {
        let mut lines = Lines::new(BufReader::with_capacity(chunk, input), 5);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push(line);
        }
        all
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_passed_over_and_the_next_one_is_read() {
        let text = |text: &str| Line::Text(text.to_owned());
        for chunk in 1..20 {
            let got = lines(b"12345\n123456\n\n\xff\n1234567890123\nend", chunk).await;
            let expected =
                [text("12345"), Line::TooLong, text(""), Line::NotText, Line::TooLong, text("end")];
            assert_eq!(got, expected, "chunks of {chunk}");
        }
        assert_eq!(lines(b"123456", 3).await, [Line::TooLong]);
    }
}
