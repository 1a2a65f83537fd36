//! A program's completions for shells, in `completions/`, are those of its arguments.

use std::path::Path;
use std::{env, fs};

use clap::CommandFactory;
use clap_complete::Shell;

/// Fails unless bash, zsh and fish complete as `Arguments` has it; with `TBTT_WRITE` set, has them do so.
pub(crate) fn check<Arguments: CommandFactory>(program: &str) {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("completions");
    for (shell, file) in [
        (Shell::Bash, format!("bash/{program}")),
        (Shell::Zsh, format!("zsh/_{program}")),
        (Shell::Fish, format!("fish/{program}.fish")),
    ] {
        let mut generated = Vec::new();
        clap_complete::generate(shell, &mut Arguments::command(), program, &mut generated);
        let file = place.join(file);
        if env::var_os("TBTT_WRITE").is_some() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, &generated).unwrap();
        }
        let committed = fs::read(&file).unwrap_or_default();
        assert!(
            committed == generated,
            "{} is not what {program} takes: TBTT_WRITE=1 cargo test completions",
            file.display()
        );
    }
}
