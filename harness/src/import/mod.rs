//! Room for `import`.
