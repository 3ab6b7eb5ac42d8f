//! Programs whose short options, or words, are secrets; elsewhere the same ones are anything.

/// What a program's arguments mean.
#[derive(Debug)]
pub(super) struct Program {
    names: &'static [&'static str],
    /// The argument behind one of these is a secret.
    pub(super) next: &'static [&'static str],
    /// … what follows in the same argument.
    pub(super) attached: &'static [&'static str],
    /// … what is behind a colon in the next one.
    pub(super) user: &'static [&'static str],
    /// All of this holds only if this is among the arguments.
    pub(super) only_with: Option<&'static str>,
}

const NONE: Program = Program { names: &[], next: &[], attached: &[], user: &[], only_with: None };

const PROGRAMS: [Program; 15] = [
    Program { names: &["aws"], next: &["--plaintext", "--private-key"], ..NONE },
    Program {
        names: &["buildah", "crane", "docker", "helm", "nerdctl", "oras", "podman", "skopeo"],
        next: &["-p"],
        attached: &["-p"],
        only_with: Some("login"),
        ..NONE
    },
    Program { names: &["curl"], next: &["--oauth2-bearer"], user: &["-E", "--cert", "--proxy-cert"], ..NONE },
    Program { names: &["http", "https", "xh"], user: &["-a", "--auth"], ..NONE },
    Program {
        names: &["ldapadd", "ldapdelete", "ldapmodify", "ldappasswd", "ldapsearch", "ldapwhoami"],
        next: &["-w"],
        attached: &["-w"],
        ..NONE
    },
    Program {
        names: &["mongo", "mongodump", "mongoexport", "mongoimport", "mongorestore", "mongosh", "mongostat"],
        next: &["-p"],
        attached: &["-p"],
        ..NONE
    },
    Program {
        names: &[
            "mariadb",
            "mariadb-admin",
            "mariadb-dump",
            "mycli",
            "mysql",
            "mysqladmin",
            "mysqlcheck",
            "mysqldump",
            "mysqlimport",
            "mysqlsh",
            "mysqlshow",
        ],
        attached: &["-p"],
        ..NONE
    },
    Program { names: &["openssl"], next: &["-passin", "-passout", "-pass", "-k", "-K"], ..NONE },
    Program { names: &["redis-cli", "valkey-cli"], next: &["-a"], attached: &["-a"], ..NONE },
    Program { names: &["7z", "7za", "7zr", "7zz"], attached: &["-p"], ..NONE },
    Program { names: &["bcp", "sqlcmd"], next: &["-P"], attached: &["-P"], ..NONE },
    Program { names: &["sshpass"], next: &["-p"], attached: &["-p"], ..NONE },
    Program { names: &["useradd", "usermod"], next: &["-p"], ..NONE },
    Program { names: &["unzip", "zip"], next: &["-P"], attached: &["-P"], ..NONE },
    Program { names: &["vault"], next: &["login"], ..NONE },
];

impl Program {
    /// The one with this name, whatever folder it is in.
    pub(super) fn named(word: &str) -> Option<&'static Self> {
        let name = word.rsplit('/').next().unwrap_or_default();
        PROGRAMS.iter().find(|program| program.names.contains(&name))
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.names.contains(&name)
    }
}
