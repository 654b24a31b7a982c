// SPDX-License-Identifier: GPL-2.0

//! What fuzzing found, once more: each file of `fuzz/corpus`, without a fuzzer.

use std::{
    fs,
    panic,
    path::Path, //
};

#[test]
fn whatever_fuzzing_reached() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in mhs_fuzz::TARGETS {
        let mut files = 0;
        for entry in fs::read_dir(corpus.join(name)).unwrap() {
            let path = entry.unwrap().path();
            let data = fs::read(&path).unwrap();
            let outcome = panic::catch_unwind(|| target(&data));
            assert!(outcome.is_ok(), "target {name} with {}", path.display());
            files += 1;
        }
        println!("| {name}: {files} inputs |");
        assert!(files > 10, "the corpus of {name} is lost");
    }
}
