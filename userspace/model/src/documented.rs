//! Types that tell what their fields are: configuration is documented, printed and checked by them.

/// A field, as it is documented where it is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its attributes as they stand in the source.
    #[doc(hidden)]
    pub attributes: &'static [&'static str],
}

impl Field {
    /// Its documentation, in one paragraph.
    pub fn documentation(&self) -> String {
        let lines = self.attributes.iter().filter_map(|attribute| {
            let text = attribute.strip_prefix("doc")?.trim_start().strip_prefix('=')?.trim();
            // A string as the compiler prints it.
            let is_raw = text.starts_with('r');
            let text = text.trim_start_matches('r').trim_matches('#').strip_prefix('"')?.strip_suffix('"')?;
            let text = if is_raw { text.to_owned() } else { text.replace("\\\"", "\"").replace("\\'", "'") };
            Some(text.trim().to_owned())
        });
        lines.collect::<Vec<_>>().join(" ")
    }
}

/// Declares a struct with public fields that tells of them: its constant `FIELDS`.
#[macro_export]
macro_rules! documented {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$attribute:meta])* pub $field:ident: $type:ty,)+
        }
    ) => {
        $(#[$meta])*
        pub struct $name {
            $($(#[$attribute])* pub $field: $type,)+
        }

        impl $name {
            /// Its fields, with what is said of each above.
            pub const FIELDS: &'static [$crate::Field] = &[
                $($crate::Field { name: stringify!($field), attributes: &[$(stringify!($attribute)),*] },)+
            ];
        }
    };
}

#[cfg(test)]
mod tests {
    crate::documented! {
        /// A thing.
        #[derive(Debug)]
        #[allow(dead_code)]
        pub struct Thing {
            /// How many, at "most";
            /// it's 7 by default.
            #[allow(dead_code)]
            pub count: u32,
            /// Where.
            pub place: String,
        }
    }

    #[test]
    fn fields_tell_what_is_said_of_them() {
        let [count, place] = Thing::FIELDS else { panic!() };
        assert_eq!((count.name, &*count.documentation()), ("count", "How many, at \"most\"; it's 7 by default."));
        assert_eq!((place.name, &*place.documentation()), ("place", "Where."));
    }
}
