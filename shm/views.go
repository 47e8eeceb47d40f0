package shm

import (
	"fmt"
	"reflect"
)

// Value returns the data from offset off on as a *T: a number, an array, a
// struct of such, or types of sync/atomic. The memory is shared, and stays so
// until Detach; it must not be used after. What is not atomic must be used while
// holding the lock.
//
// Processes must agree on T: its layout is the compiler's for the machine. A
// sync.Mutex and its like have no pointers, but wake goroutines of one process only.
//
// Errors: ErrType if T holds pointers (strings, slices, maps and the like do) or
// nothing at all, or if off is no multiple of T's alignment; ErrSize if it
// reaches beyond the segment; ErrReadOnly on a read-only attachment, where a
// reader takes a Snapshot, or reads into a T of its own with ReadAt; ErrDetached.
func Value[T any](s *Segment, off int) (*T, error) {
	return view[T](s, off, 1)
}

// Slice returns n consecutive values as Value does one.
func Slice[T any](s *Segment, off, n int) ([]T, error) {
	first, err := view[T](s, off, n)
	if err != nil {
		return nil, err
	}
	return typedSlice(first, n), nil
}

func view[T any](s *Segment, off, n int) (*T, error) {
	refuse := func(kind error, format string, args ...any) (*T, error) {
		return nil, fail("view", s.key, fmt.Errorf("%w: %s", kind, fmt.Sprintf(format, args...)))
	}
	t := reflect.TypeFor[T]()
	data := s.Data()
	switch size := int(t.Size()); {
	case data == nil:
		return nil, fail("view", s.key, ErrDetached)
	case s.readOnly:
		return refuse(ErrReadOnly, "a %v could be written through; take a Snapshot, or ReadAt into one of your own", t)
	case size == 0:
		return refuse(ErrType, "%v has no size", t)
	case pointerIn(t) != "":
		return refuse(ErrType, "%v holds a %s, and an address means nothing in another process", t, pointerIn(t))
	case n < 1 || off < 0 || off > len(data) || n > (len(data)-off)/size:
		return refuse(ErrSize, "%d of %v at offset %d do not fit into %d bytes", n, t, off, len(data))
	}
	first, aligned := typedAt[T](data[off:])
	if !aligned {
		return refuse(ErrType, "offset %d is no multiple of %d, the alignment of %v", off, t.Align(), t)
	}
	return first, nil
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
