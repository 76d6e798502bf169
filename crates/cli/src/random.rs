//! Names that nobody else has.

use anyhow::anyhow;

/// 64 random bits from the kernel as 16 hexadecimal digits: enough for two programs never to
/// choose the same.
///
/// # Errors
/// When the kernel has none, which happens only where getrandom(2) is forbidden.
pub(crate) fn random_name() -> anyhow::Result<String> {
    let number = getrandom::u64()
        .map_err(|fault| anyhow!("could not get randomness from the kernel: {fault}"))?;
    Ok(format!("{number:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ() {
        let (one, other) = (random_name().unwrap(), random_name().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), 16);
    }
}
