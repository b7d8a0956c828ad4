//! Invariant: every figure of the library has its place in the dictionary, under the same name.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::Value;
use vmtorrent::Stats;

/// Figures, as the dictionary that Python gets.
pub(crate) struct StatsDict(pub(crate) Stats);

impl<'py> IntoPyObject<'py> for StatsDict {
    type Target = PyDict;
    type Output = Bound<'py, PyDict>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        let dict = PyDict::new(py);
        let value = serde_json::to_value(&self.0)
            .map_err(|e| PyRuntimeError::new_err(format!("the figures can't be told: {e}")))?;
        for (name, figure) in value.as_object().into_iter().flatten() {
            match figure {
                Value::Number(number) if number.is_u64() => {
                    dict.set_item(name, number.as_u64())?;
                }
                figure => dict.set_item(name, figure.as_f64())?,
            }
        }
        Ok(dict)
    }
}
