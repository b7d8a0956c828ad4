//! Invariant: a name that passes here can be handed to the host as one path component.

use crate::Errno;

/// The longest name that Linux file systems and the FUSE protocol take, in bytes.
const LONGEST: usize = 255;

/// Refuses what is not the name of one entry in a directory.
pub(super) fn check_name(name: &str) -> Result<(), Errno> {
    if name.len() > LONGEST {
        return Err(Errno::ENAMETOOLONG);
    }
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_not_one_component_are_refused() {
        for bad in ["", ".", "..", "a/b", "/", "a\0b"] {
            assert_eq!(check_name(bad), Err(Errno::EINVAL), "{bad:?}");
        }
        assert_eq!(check_name(&"x".repeat(256)), Err(Errno::ENAMETOOLONG));
        for good in ["a", "...", "disk.img", &"x".repeat(255), "ä b\n"] {
            assert_eq!(check_name(good), Ok(()), "{good:?}");
        }
    }
}
