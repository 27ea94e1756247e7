//! The header in the repository is the one that cbindgen generates now.

use std::path::Path;

#[test]
fn the_header_is_that_of_the_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).expect("a configuration");
    let parsed = cbindgen::Builder::new().with_config(config).with_src(folder.join("src/lib.rs")).generate();
    let mut header = Vec::new();
    parsed.expect("a header").write(&mut header);
    let header = String::from_utf8(header).expect("text");
    let path = folder.join("include/accelkd_dsp.h");
    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::write(&path, &header).expect("written");
    }
    let committed = std::fs::read_to_string(path).expect("the header").replace("\r\n", "\n");
    assert!(committed == header, "UPDATE_HEADER=1 cargo test writes the header of the code");
}
