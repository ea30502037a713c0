//! Names of units: `web.service`, the template `web@.service`, its instance `web@blue.service`.

use std::fmt;

/// The types that systemd has. Only services and sockets are looked into.
const TYPES: [&str; 11] =
    ["service", "socket", "target", "device", "mount", "automount", "swap", "timer", "path", "slice", "scope"];
/// `UNIT_NAME_MAX` of systemd, less its NUL.
const LONGEST: usize = 255;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct UnitName {
    /// Without type: `web`, `web@`, `web@blue`.
    stem: String,
    kind: String,
}

impl UnitName {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (stem, kind) = text.rsplit_once('.')?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        let valid = text.len() <= LONGEST
            && !stem.is_empty()
            && !stem.starts_with('@')
            && stem.chars().all(allowed)
            && TYPES.contains(&kind);
        valid.then(|| Self { stem: stem.to_owned(), kind: kind.to_owned() })
    }

    /// The unit that a setting names; in a template it is that of the same, unknown instance.
    pub(super) fn of_instance(text: &str) -> Option<Self> {
        Self::parse(&text.replace("@%i.", "@.").replace("@%I.", "@."))
    }

    pub(super) fn is_service(&self) -> bool {
        self.kind == "service"
    }

    pub(super) fn is_socket(&self) -> bool {
        self.kind == "socket"
    }

    /// Everything before the type.
    pub(super) fn stem(&self) -> &str {
        &self.stem
    }

    /// Before the `@`.
    pub(super) fn prefix(&self) -> &str {
        self.stem.split_once('@').map_or(&self.stem, |(prefix, _)| prefix)
    }

    /// After the `@`. `None` of a template, whose instance is not known.
    pub(super) fn instance(&self) -> Option<&str> {
        self.stem.split_once('@').map(|(_, instance)| instance).filter(|i| !i.is_empty())
    }

    pub(super) fn is_template(&self) -> bool {
        self.stem.ends_with('@') && self.instance().is_none()
    }

    /// The file that an instance is made from.
    pub(super) fn template(&self) -> Option<Self> {
        self.instance().map(|_| Self { stem: format!("{}@", self.prefix()), kind: self.kind.clone() })
    }

    pub(super) fn with_type(&self, kind: &str) -> Self {
        Self { stem: self.stem.clone(), kind: kind.to_owned() }
    }

    /// Directories with its drop-ins, the most general first; the file names decide the order.
    pub(super) fn drop_in_directories(&self) -> Vec<String> {
        let mut all = Vec::new();
        self.drop_in_names(&mut all);
        all.push(self.kind.clone());
        all.reverse();
        all.into_iter().map(|name| format!("{name}.d")).collect()
    }

    /// As `unit_file_find_dirs` of systemd does it: the unit, its template, and then the same of
    /// what stands before the last dash: `foo-.service` is for `foo-bar.service` and
    /// `foo-bar-baz.service`.
    fn drop_in_names(&self, all: &mut Vec<String>) {
        all.push(self.to_string());
        if let Some(template) = self.template() {
            template.drop_in_names(all);
        }
        let prefix = self.prefix();
        let prefix = prefix.strip_suffix('-').unwrap_or(prefix);
        let Some(dash) = prefix.rfind('-').filter(|at| *at > 0) else { return };
        let instance = self.instance().map(|instance| format!("@{instance}")).unwrap_or_default();
        Self { stem: format!("{}{instance}", &prefix[..=dash]), kind: self.kind.clone() }.drop_in_names(all);
    }

    /// Replaces the specifiers that name the unit itself; others, and `%i` of a template, stay.
    pub(super) fn expand(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let specifier = if c == '%' { chars.next() } else { None };
            match specifier {
                None => out.push(c),
                Some('%') => out.push('%'),
                Some('n') => out.push_str(&self.to_string()),
                Some('N') => out.push_str(&self.stem),
                Some('p' | 'P') => out.push_str(self.prefix()),
                Some('j' | 'J') => out.push_str(self.prefix().rsplit('-').next().unwrap_or_default()),
                Some('i' | 'I') if !self.is_template() => out.push_str(self.instance().unwrap_or_default()),
                Some(other) => out.extend(['%', other]),
            }
        }
        out
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.stem, self.kind)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> UnitName {
        UnitName::parse(text).unwrap()
    }

    #[test]
    fn templates_and_instances() {
        let (plain, template, instance) = (name("a-b.service"), name("web@.service"), name("web@blue.socket"));
        assert_eq!((plain.stem(), plain.instance(), plain.is_template()), ("a-b", None, false));
        assert_eq!((template.prefix(), template.instance(), template.is_template()), ("web", None, true));
        assert_eq!((instance.prefix(), instance.instance()), ("web", Some("blue")));
        assert_eq!(instance.template(), Some(name("web@.socket")));
        for wrong in ["web", "web.conf", ".service", "@.service", "a b.service", "a/b.service", ""] {
            assert_eq!(UnitName::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn specifiers() {
        assert_eq!(
            name("web@blue.service").expand("%n %N %p %i 100%% %t %"),
            "web@blue.service web@blue web blue 100% %t %"
        );
        assert_eq!(name("web@.service").expand("x-%i"), "x-%i");
        assert_eq!(name("a-b.service").expand("%j"), "b");
    }

    #[test]
    fn drop_ins_of_all_levels() {
        let expected =
            ["service.d", "a-@.service.d", "a-@c-d.service.d", "a-.service.d", "a-b@.service.d", "a-b@c-d.service.d"];
        assert_eq!(name("a-b@c-d.service").drop_in_directories(), expected);
        assert_eq!(name("a-b-.socket").drop_in_directories(), ["socket.d", "a-.socket.d", "a-b-.socket.d"]);
        assert_eq!(name("-a.service").drop_in_directories(), ["service.d", "-a.service.d"]);
    }

    proptest! {
        #![proptest_config(crate::commands::check::fixed_seed(3))]
        #[test]
        fn nothing_panics(text in "\\PC{0,20}", unit in "[a-z@%.-]{0,8}\\.service") {
            let _ = UnitName::parse(&text);
            if let Some(name) = UnitName::parse(&unit) {
                let _ = (name.expand(&text), name.drop_in_directories());
            }
        }
    }
}
