use super::*;

#[test]
fn what_ended_first_is_forgotten_first() {
    let mut remembered = Remembered::new(3, 100, 60);
    for number in 0..5 {
        remembered.push(number, 10);
    }
    assert_eq!([remembered.pop_surplus(), remembered.pop_surplus()], [Some(0), Some(1)]);
    assert_eq!((remembered.pop_surplus(), remembered.bytes), (None, 30));

    remembered.push(5, 90);
    assert_eq!([remembered.pop_surplus(), remembered.pop_surplus()], [Some(2), Some(3)]);
    remembered.remove(4);
    assert_eq!((remembered.pop_surplus(), remembered.bytes), (None, 90));

    remembered.push(6, 1000);
    assert_eq!(remembered.pop_surplus(), Some(5));
    assert_eq!(remembered.pop_surplus(), None, "the last one is kept whatever it takes");
}

#[test]
fn what_is_remembered_for_a_time_is_forgotten_after_it() {
    let mut remembered = Remembered::new(3, 100, 60);
    let begun = Instant::now();
    remembered.push(1, 10);
    remembered.push(2, 10);

    assert_eq!(remembered.pop_expired(begun + Duration::from_secs(59)), None);
    let later = Instant::now() + Duration::from_secs(60);
    assert_eq!([remembered.pop_expired(later), remembered.pop_expired(later)], [Some(1), Some(2)]);
    assert_eq!((remembered.pop_expired(later), remembered.bytes), (None, 0));
}
