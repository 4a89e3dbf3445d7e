//! Prints the primes up to a number.

fn main() {
    let limit: usize = std::env::args().nth(1).and_then(|word| word.parse().ok()).expect("a number");
    let mut composite = vec![false; limit + 1];
    let mut primes = Vec::new();
    for n in 2..=limit {
        if !composite[n] {
            primes.push(n.to_string());
            (n * n..=limit).step_by(n).for_each(|m| composite[m] = true);
        }
    }
    println!("{}", primes.join(" "));
}
