//! Names and bios for numbered people, so that a list of them can be read. Always the same for the same number.

const FIRST: [&str; 64] = [
    "Ada", "Amir", "Anouk", "Arjun", "Astrid", "Bela", "Bruno", "Carmen", "Cato", "Chidi", "Clara", "Dario",
    "Dilan", "Edith", "Elif", "Emeka", "Enzo", "Esme", "Farah", "Felix", "Freya", "Gael", "Greta", "Hana",
    "Hugo", "Ida", "Imran", "Ines", "Ivo", "Jonas", "Juno", "Kaito", "Karim", "Lena", "Liam", "Linh",
    "Lucia", "Mads", "Maya", "Mei", "Milo", "Mira", "Nadia", "Nils", "Noor", "Olga", "Omar", "Oscar",
    "Paola", "Petra", "Quinn", "Rafael", "Ravi", "Rosa", "Samir", "Selma", "Tariq", "Tessa", "Theo", "Uma",
    "Vera", "Viktor", "Yara", "Zoe",
];

const LAST: [&str; 64] = [
    "Abara", "Almeida", "Andersen", "Aoki", "Arslan", "Bauer", "Becker", "Bianchi", "Bondar", "Castro",
    "Chen", "Cohen", "Costa", "Dahl", "Demir", "Diaz", "Dubois", "Eriksen", "Farkas", "Ferrari", "Fischer",
    "Fontaine", "Garcia", "Haddad", "Hansen", "Horvat", "Ito", "Ivanova", "Jansen", "Jensen", "Kaya",
    "Keller", "Khan", "Kim", "Kovacs", "Larsen", "Laurent", "Lindgren", "Lopez", "Marino", "Martin", "Mbeki",
    "Meyer", "Moreau", "Mori", "Nakamura", "Nguyen", "Novak", "Okafor", "Olsen", "Ortega", "Park", "Patel",
    "Petrov", "Ricci", "Rossi", "Santos", "Sato", "Silva", "Singh", "Tanaka", "Weber", "Yilmaz", "Zhang",
];

const WORK: [&str; 16] = [
    "Reads schedules for fun",
    "Night-shift baker",
    "Amateur astronomer",
    "Maps, mostly of small places",
    "Fixes old radios",
    "Teaches geometry",
    "Gardener of difficult roses",
    "Compiles things for a living",
    "Collects first sentences",
    "Cycles to work in any weather",
    "Plays the viola badly",
    "Writes tests first",
    "Keeps bees",
    "Draws bridges",
    "Translates weather reports",
    "Still learning to swim",
];

const PLACE: [&str; 16] = [
    "Vaduz", "Helsinki", "Monaco", "Porto", "Lagos", "Kyoto", "Oslo", "Lima", "Izmir", "Ghent", "Turin",
    "Tallinn", "Accra", "Hanoi", "Bergen", "Quito",
];

/// A name. The first 4,096 people have names of their own; after that a name comes again with a number behind it.
pub fn name(person: usize) -> String {
    // An odd factor permutes the numbers below 4,096, so that neighbours do not share a first name.
    let mixed = person.wrapping_mul(2_654_435_761) % 4_096;
    let name = format!("{} {}", FIRST[mixed / 64], LAST[mixed % 64]);
    match person / 4_096 {
        0 => name,
        round => format!("{name} {}", round + 1),
    }
}

/// A bio: something they do, and where.
pub fn bio(person: usize) -> String {
    let mixed = super::mix(person as u64, 0xb10);
    let (work, place) = (mixed as usize % 16, (mixed >> 8) as usize % 16);
    format!("{}. {}.", WORK[work], PLACE[place])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ten_thousand_people_have_ten_thousand_names() {
        let names: HashSet<String> = (0..10_000).map(name).collect();
        assert_eq!(names.len(), 10_000);
        assert_eq!(name(0), "Ada Abara");
    }
}
