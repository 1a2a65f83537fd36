//! Compares the shell completions in `completions/` with the arguments of a program.

use std::path::Path;
use std::{env, fs};

use clap::CommandFactory;
use clap_complete::Shell;

/// Fails if the completions for bash, zsh or fish do not match `Arguments`. Writes them first if the environment
/// variable `TBTT_WRITE` is set.
pub(crate) fn check<Arguments: CommandFactory>(program: &str) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("completions");
    for (shell, file) in [
        (Shell::Bash, format!("bash/{program}")),
        (Shell::Zsh, format!("zsh/_{program}")),
        (Shell::Fish, format!("fish/{program}.fish")),
    ] {
        let mut generated = Vec::new();
        clap_complete::generate(shell, &mut Arguments::command(), program, &mut generated);
        let file = directory.join(file);
        if env::var_os("TBTT_WRITE").is_some() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, &generated).unwrap();
        }
        let committed = fs::read(&file).unwrap_or_default();
        assert!(
            committed == generated,
            "{} does not match the arguments of {program}; run TBTT_WRITE=1 cargo test completions",
            file.display()
        );
    }
}
