//! Classifies images through the C interface: classify MODEL IMAGE...
use std::ffi::{c_char, c_void, CStr, CString};
use std::process::exit;
use std::ptr::null_mut;

#[repr(C)]
struct Prediction {
    struct_size: usize,
    label: *const c_char,
    index: i64,
    probability: f32,
}

extern "C" {
    fn convship_last_error() -> *const c_char;
    fn convship_model_load(
        path: *const c_char,
        options: *const c_void,
        model: *mut *mut c_void,
    ) -> i32;
    fn convship_model_free(model: *mut c_void);
    fn convship_predict_files(
        model: *const c_void,
        paths: *const *const c_char,
        count: usize,
        top_k: i32,
        predictions: *mut *mut c_void,
    ) -> i32;
    fn convship_predictions_get(
        predictions: *const c_void,
        image: usize,
        rank: usize,
        prediction: *mut Prediction,
    ) -> i32;
    fn convship_predictions_free(predictions: *mut c_void);
}

fn text(pointer: *const c_char) -> String {
    // Safety: the library hands out texts that end in zero.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

fn check(status: i32) {
    if status != 0 {
        eprintln!("classify: {}", text(unsafe { convship_last_error() }));
        exit(status);
    }
}

fn main() {
    let arguments: Vec<CString> =
        std::env::args().skip(1).map(|each| CString::new(each).unwrap()).collect();
    let Some((path, images)) = arguments.split_first() else {
        eprintln!("usage: classify MODEL IMAGE...");
        exit(2);
    };
    let paths: Vec<*const c_char> = images.iter().map(|each| each.as_ptr()).collect();
    let (mut model, mut found) = (null_mut(), null_mut());
    unsafe {
        check(convship_model_load(path.as_ptr(), null_mut(), &mut model));
        check(convship_predict_files(model, paths.as_ptr(), paths.len(), 1, &mut found));
        for (index, image) in images.iter().enumerate() {
            let mut best: Prediction = std::mem::zeroed();
            best.struct_size = std::mem::size_of::<Prediction>();
            check(convship_predictions_get(found, index, 0, &mut best));
            println!("{}: {} {:.4}", image.to_string_lossy(), text(best.label), best.probability);
        }
        convship_predictions_free(found);
        convship_model_free(model);
    }
}
