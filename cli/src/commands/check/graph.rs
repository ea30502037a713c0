//! Which units a reload goes around between.

/// Numbers of nodes, sorted into circles: two share one if there is a way from each to the other.
#[derive(Debug)]
pub(super) struct Circles(Vec<usize>);

impl Circles {
    /// Kosaraju's algorithm without recursion: nobody says how long a chain of units is.
    pub(super) fn of(edges: &[Vec<usize>]) -> Self {
        let mut back = vec![Vec::new(); edges.len()];
        for (from, all) in edges.iter().enumerate() {
            all.iter().for_each(|to| back[*to].push(from));
        }
        let mut left = Vec::with_capacity(edges.len());
        let mut seen = vec![false; edges.len()];
        for start in 0..edges.len() {
            if !seen[start] {
                walk(edges, start, &mut seen, |node| left.push(node));
            }
        }
        let mut circles = vec![0; edges.len()];
        let mut seen = vec![false; edges.len()];
        for start in left.into_iter().rev() {
            if !seen[start] {
                walk(&back, start, &mut seen, |node| circles[node] = start);
            }
        }
        Self(circles)
    }

    pub(super) fn share(&self, one: usize, other: usize) -> bool {
        self.0[one] == self.0[other]
    }
}

/// Depth first; each node is named when all that follows it has been.
fn walk(edges: &[Vec<usize>], start: usize, seen: &mut [bool], mut leave: impl FnMut(usize)) {
    seen[start] = true;
    let mut open = vec![(start, 0)];
    while let Some((node, next)) = open.pop() {
        match edges[node].get(next) {
            Some(to) => {
                open.push((node, next + 1));
                if !std::mem::replace(&mut seen[*to], true) {
                    open.push((*to, 0));
                }
            }
            None => leave(node),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_are_found() {
        let circles = Circles::of(&[vec![1], vec![2], vec![0, 3], vec![4], vec![4], vec![0]]);
        let with_0: Vec<_> = (0..6).filter(|n| circles.share(0, *n)).collect();
        assert_eq!(with_0, [0, 1, 2]);
        assert!(!circles.share(3, 4) && !circles.share(5, 0));
        let long: Vec<_> = (0..100_000).map(|n| vec![(n + 1) % 100_000]).collect();
        assert!(Circles::of(&long).share(0, 50_000));
    }
}
