//! Rust tokens with their lines; comments are dropped, and test code on request.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A name, a keyword or a number.
    Word,
    /// The content of a string literal: between its quotes, escapes as they stand in the source.
    Text,
    /// One character of punctuation.
    Punctuation,
}

/// A token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// Its text.
    pub text: String,
    /// Its line, from 1.
    pub line: usize,
}

impl Token {
    /// Whether it is this word or this punctuation.
    pub fn is(&self, text: &str) -> bool {
        self.kind != TokenKind::Text && self.text == text
    }
}

/// The tokens of `source`; lifetimes, characters and comments are left out.
pub fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { chars: source.chars().collect(), at: 0, line: 1, tokens: Vec::new() };
    while lexer.at < lexer.chars.len() {
        lexer.step();
    }
    lexer.tokens
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn advance(&mut self) -> char {
        let read = self.peek(0);
        self.line += usize::from(read == '\n');
        self.at += 1;
        read
    }

    fn push(&mut self, kind: TokenKind, text: String, line: usize) {
        self.tokens.push(Token { kind, text, line });
    }

    fn step(&mut self) {
        let line = self.line;
        match self.peek(0) {
            '/' if self.peek(1) == '/' => {
                while self.at < self.chars.len() && self.peek(0) != '\n' {
                    self.advance();
                }
            }
            '/' if self.peek(1) == '*' => self.block_comment(),
            '"' => {
                self.advance();
                let text = self.string();
                self.push(TokenKind::Text, text, line);
            }
            '\'' => self.character_or_lifetime(),
            first if first.is_alphanumeric() || first == '_' => {
                let mut word = String::new();
                while self.peek(0).is_alphanumeric() || self.peek(0) == '_' {
                    word.push(self.advance());
                }
                if !self.prefixed_string(&word, line) {
                    self.push(TokenKind::Word, word, line);
                }
            }
            first if first.is_whitespace() => {
                self.advance();
            }
            _ => {
                let text = self.advance().to_string();
                self.push(TokenKind::Punctuation, text, line);
            }
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.chars.len() {
            match (self.peek(0), self.peek(1)) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                _ => {
                    self.advance();
                    continue;
                }
            }
            self.advance();
            self.advance();
            if depth == 0 {
                return;
            }
        }
    }

    /// The rest of a string whose opening quote was read.
    fn string(&mut self) -> String {
        let mut text = String::new();
        while self.at < self.chars.len() {
            match self.advance() {
                '"' => break,
                '\\' => {
                    text.push('\\');
                    text.push(self.advance());
                }
                other => text.push(other),
            }
        }
        text
    }

    /// A string after the prefix `r`, `b`, `br`, `c` or `cr`, which was read as a word; whether there was one.
    fn prefixed_string(&mut self, prefix: &str, line: usize) -> bool {
        let is_raw = matches!(prefix, "r" | "br" | "cr");
        if matches!(prefix, "b" | "c") && self.peek(0) == '"' {
            self.advance();
            let text = self.string();
            self.push(TokenKind::Text, text, line);
            return true;
        }
        if !is_raw {
            return false;
        }
        let hashes = (0..).take_while(|ahead| self.peek(*ahead) == '#').count();
        if self.peek(hashes) != '"' {
            return false;
        }
        for _ in 0..=hashes {
            self.advance();
        }
        let mut text = String::new();
        while self.at < self.chars.len() {
            if self.peek(0) == '"' && (1..=hashes).all(|ahead| self.peek(ahead) == '#') {
                for _ in 0..=hashes {
                    self.advance();
                }
                break;
            }
            text.push(self.advance());
        }
        self.push(TokenKind::Text, text, line);
        true
    }

    fn character_or_lifetime(&mut self) {
        self.advance();
        // A lifetime is a name without a closing quote; a character is one character or an escape with one.
        let is_lifetime = (self.peek(0).is_alphabetic() || self.peek(0) == '_') && self.peek(1) != '\'';
        if is_lifetime {
            while self.peek(0).is_alphanumeric() || self.peek(0) == '_' {
                self.advance();
            }
            return;
        }
        while self.at < self.chars.len() {
            match self.advance() {
                '\'' => return,
                '\\' => {
                    self.advance();
                }
                _ => {}
            }
        }
    }
}

/// `tokens` without the items under `#[cfg(test)]` and `#[test]`, and the names of the test modules in files of their own.
pub fn without_tests(tokens: &[Token]) -> (Vec<Token>, Vec<String>) {
    let (mut kept, mut test_files, mut at) = (Vec::new(), Vec::new(), 0);
    while at < tokens.len() {
        match attribute_end(tokens, at) {
            Some(end) if is_test_attribute(&tokens[at..end]) => {
                let item = skip_attributes(tokens, end);
                let end = item_end(tokens, item);
                let words: Vec<&str> = tokens[item..end].iter().map(|token| token.text.as_str()).collect();
                if let [.., "mod", name, ";"] = words[..] {
                    test_files.push(name.to_owned());
                }
                at = end;
            }
            Some(end) => {
                kept.extend_from_slice(&tokens[at..end]);
                at = end;
            }
            None => {
                kept.push(tokens[at].clone());
                at += 1;
            }
        }
    }
    (kept, test_files)
}

/// The position behind the outer attribute that begins at `at`, if one does.
fn attribute_end(tokens: &[Token], at: usize) -> Option<usize> {
    let begins = tokens.get(at)?.is("#") && tokens.get(at + 1)?.is("[");
    begins.then(|| closing(tokens, at + 1, "[", "]"))
}

fn skip_attributes(tokens: &[Token], mut at: usize) -> usize {
    while let Some(end) = attribute_end(tokens, at) {
        at = end;
    }
    at
}

fn is_test_attribute(attribute: &[Token]) -> bool {
    let words: Vec<&str> =
        attribute.iter().filter(|it| it.kind == TokenKind::Word).map(|it| it.text.as_str()).collect();
    match words[..] {
        ["test"] | ["cfg", "test"] => true,
        ["cfg", "all", ..] => words.contains(&"test"),
        _ => false,
    }
}

/// The position behind the item that begins at `at`: behind its `;` or its braces.
fn item_end(tokens: &[Token], at: usize) -> usize {
    let mut depth = 0_i32;
    for (index, token) in tokens.iter().enumerate().skip(at) {
        match token.text.as_str() {
            _ if token.kind == TokenKind::Text => {}
            "(" | "[" => depth += 1,
            ")" | "]" => depth -= 1,
            ";" if depth == 0 => return index + 1,
            "{" if depth == 0 => return closing(tokens, index, "{", "}"),
            _ => {}
        }
    }
    tokens.len()
}

/// The position behind the bracket that closes the one at `at`.
pub fn closing(tokens: &[Token], at: usize, open: &str, close: &str) -> usize {
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate().skip(at) {
        if token.is(open) {
            depth += 1;
        } else if token.is(close) {
            depth -= 1;
            if depth == 0 {
                return index + 1;
            }
        }
    }
    tokens.len()
}
