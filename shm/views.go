package shm

import (
	"fmt"
	"reflect"
	"sync"
)

// Typed views of the data.

// Value returns the data from offset off on as a *T: a number, an array, a struct
// of such, or types of sync/atomic. The memory is shared, stays so until Detach,
// and must not be used after that. Values that are not atomic must be used with the
// lock held. On a read-only attachment, writing through the pointer faults.
//
// Processes must agree on T: its layout is the compiler's for the machine. A
// sync.Mutex and its like have no pointers, but wake goroutines of one process only.
//
// Errors: ErrType if T holds pointers (strings, slices, maps and the like do) or
// has no size, or if off is not a multiple of T's alignment; ErrSize if the value
// reaches beyond the segment; ErrDetached; ErrCorrupt if another program has
// truncated the file.
func Value[T any](s *Segment, off int) (*T, error) {
	return view[T](s, off, 1)
}

// Slice returns n consecutive values as Value returns one.
func Slice[T any](s *Segment, off, n int) ([]T, error) {
	first, err := view[T](s, off, n)
	if err != nil {
		return nil, err
	}
	return typedSlice(first, n), nil
}

func view[T any](s *Segment, off, n int) (*T, error) {
	if err := checkType[T](); err != nil {
		return nil, fail("view", s.key, err)
	}
	if !s.enter() {
		return nil, fail("view", s.key, ErrDetached)
	}
	defer s.leave()
	data, err := s.guardedData()
	if err == nil {
		err = checkRange[T](data, off, n)
	}
	if err != nil {
		return nil, fail("view", s.key, err)
	}
	first, aligned := typedAt[T](data[off:])
	if t := reflect.TypeFor[T](); !aligned {
		return nil, fail("view", s.key, fmt.Errorf("%w: offset %d is not a multiple of %d, the alignment of %v", ErrType, off, t.Align(), t))
	}
	return first, nil
}

// checkRange checks that n values of type T from off on lie in data.
func checkRange[T any](data []byte, off, n int) error {
	t := reflect.TypeFor[T]()
	if n < 1 || off < 0 || off > len(data) || n > (len(data)-off)/int(t.Size()) {
		return fmt.Errorf("%w: %d of %v at offset %d do not fit into %d bytes", ErrSize, n, t, off, len(data))
	}
	return nil
}

// checkedTypes has the result of checking each type; looking at a struct's fields
// allocates.
var checkedTypes sync.Map // of reflect.Type to error, or nil

// checkType checks that memory shared between processes can carry a T.
func checkType[T any]() error {
	t := reflect.TypeFor[T]()
	checked, ok := checkedTypes.Load(t)
	if !ok {
		var err error
		if t.Size() == 0 {
			err = fmt.Errorf("%w: %v has no size", ErrType, t)
		} else if name := pointerIn(t); name != "" {
			err = fmt.Errorf("%w: %v holds a %s, and an address means nothing in another process", ErrType, t, name)
		}
		checked, _ = checkedTypes.LoadOrStore(t, err)
	}
	err, _ := checked.(error)
	return err
}

// pointerIn names the first type within t that holds an address, if any does.
func pointerIn(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Array:
		return pointerIn(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if name := pointerIn(t.Field(i).Type); name != "" {
				return name
			}
		}
		return ""
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr,
		reflect.Float32, reflect.Float64, reflect.Complex64, reflect.Complex128:
		return ""
	}
	return t.String()
}
