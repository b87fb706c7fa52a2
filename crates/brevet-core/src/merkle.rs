//! Merkle trees (RFC 9162 §2.1): one hash stands for many short texts, and a path shows that one of them is among them.

use sha2::{Digest as _, Sha256};

/// SHA-256, as leaf, node or root.
pub type Hash = [u8; 32];

/// No path is longer: positions are of 32 bits.
pub const PATH_LENGTH_MAX: usize = 32;

/// A tree. It is never empty: over nothing there is nothing to prove.
#[derive(Debug, Clone)]
pub struct Tree {
    /// The leaves, then the nodes above them, up to the root. A node without a sibling moves up as it is, which
    /// gives the tree that the standard defines by halves.
    levels: Vec<Vec<Hash>>,
    root: Hash,
}

impl Tree {
    /// The tree over these texts in this order. None over nothing.
    #[must_use]
    pub fn over<'a>(texts: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut level: Vec<Hash> = texts.into_iter().map(leaf).collect();
        let mut levels = Vec::new();
        while level.len() > 1 {
            let above = level.chunks(2).filter_map(|pair| match pair {
                [left, right] => Some(node(left, right)),
                alone => alone.first().copied(),
            });
            let above = above.collect();
            levels.push(std::mem::replace(&mut level, above));
        }
        let root = *level.first()?;
        Some(Self { levels, root })
    }

    /// The Merkle tree hash (§2.1.1).
    #[must_use]
    pub const fn root(&self) -> Hash {
        self.root
    }

    /// The inclusion path (§2.1.3.1) of the text at a position: the siblings on the way from it to the root.
    #[must_use]
    pub fn path(&self, position: usize) -> Vec<Hash> {
        let siblings = self.levels.iter().enumerate().map(|(height, level)| {
            // The sibling's position differs in the last bit.
            level.get((position >> height) ^ 1)
        });
        siblings.flatten().copied().collect()
    }
}

/// The root that a path leads to from a text at a position among `count` (§2.1.3.2). None if it is no such path.
#[must_use]
pub fn root_of(text: &[u8], position: u32, count: u32, path: &[Hash]) -> Option<Hash> {
    let (mut at, mut last) = (position, count.checked_sub(1)?);
    if at > last || path.len() > PATH_LENGTH_MAX {
        return None;
    }
    let mut hash = leaf(text);
    for sibling in path {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            hash = node(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            hash = node(&hash, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    (last == 0).then_some(hash)
}

fn leaf(text: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(text).finalize().into()
}

fn node(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(hash: Hash) -> String {
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The eight texts of the vectors that implementations of Certificate Transparency share, and the root over the
    /// first one, two, three and so on.
    const TEXTS: [&[u8]; 8] = [b"", b"\0", b"\x10", b" !", b"01", b"@ABC", b"PQRSTUVW", b"`abcdefghijklmno"];
    const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    #[test]
    fn roots_and_paths_are_those_of_the_known_answers() {
        assert!(Tree::over([]).is_none());
        for (count, root) in (1..).zip(ROOTS) {
            let tree = Tree::over(TEXTS.iter().take(count).copied()).unwrap();
            assert_eq!(hex(tree.root()), root, "{count} texts");
        }
        // §2.1.5 draws the tree of seven: the path of the first is b, h and l, that of the last i and k.
        let seven = Tree::over(TEXTS.iter().take(7).copied()).unwrap();
        assert_eq!([0, 3, 4, 6].map(|position| seven.path(position).len()), [3, 3, 3, 2]);
        let half = |from: usize, to: usize| Tree::over(TEXTS[from..to].iter().copied()).unwrap().root();
        assert_eq!(seven.path(0), [leaf(TEXTS[1]), half(2, 4), half(4, 7)]);
        assert_eq!(seven.path(6), [half(4, 6), half(0, 4)]);
    }

    /// The standard's own definition, by halves.
    fn by_definition(texts: &[Vec<u8>]) -> Hash {
        match texts {
            [one] => leaf(one),
            _ => {
                let half = (texts.len().next_power_of_two() / 2).max(1);
                let (left, right) = texts.split_at(half);
                node(&by_definition(left), &by_definition(right))
            }
        }
    }

    proptest! {
        #[test]
        fn every_text_has_a_path_to_the_root_that_the_standard_defines(
            texts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..70),
        ) {
            let tree = Tree::over(texts.iter().map(Vec::as_slice)).unwrap();
            prop_assert_eq!(tree.root(), by_definition(&texts));
            let count = u32::try_from(texts.len()).unwrap();
            for (position, text) in (0..).zip(&texts) {
                let path = tree.path(usize::try_from(position).unwrap());
                prop_assert_eq!(root_of(text, position, count, &path), Some(tree.root()));
            }
        }

        #[test]
        fn no_other_text_position_count_or_path_leads_to_it(
            count in 1u32..70,
            position in 0u32..70,
            changed in 0usize..6,
            bit in 0u8..8,
        ) {
            let position = position % count;
            let texts: Vec<_> = (0..count).map(u32::to_be_bytes).collect();
            let tree = Tree::over(texts.iter().map(<[u8; 4]>::as_slice)).unwrap();
            let path = tree.path(usize::try_from(position).unwrap());
            let leads = |text: u32, position, count, path: &[Hash]| {
                root_of(&text.to_be_bytes(), position, count, path) == Some(tree.root())
            };
            prop_assert!(leads(position, position, count, &path));
            prop_assert!(!leads(position ^ (1 << bit), position, count, &path));
            for other in (0..count).filter(|other| *other != position) {
                prop_assert!(!leads(position, other, count, &path));
            }
            prop_assert!(!leads(position, count, count, &path));
            let longer = [path.clone(), vec![[0; 32]]].concat();
            prop_assert!(!leads(position, position, count, &longer));
            let mut other = path.clone();
            if let Some(hash) = other.get_mut(changed) {
                hash[usize::from(bit)] ^= 1;
                prop_assert!(!leads(position, position, count, &other));
                other.remove(changed);
                prop_assert!(!leads(position, position, count, &other));
            }
            prop_assert!(!leads(position, position, 0, &path));
        }
    }
}
